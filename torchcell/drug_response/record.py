"""``Response``: expression after a drug, beside the control of the same plate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from torchcell.drug_response.columns import TreatmentColumns
from torchcell.io.errors import (
    InputError,
    as_positions,
    column,
    near,
    refuse,
    refuse_repeats,
    refuse_shapes,
    some,
    texts,
)
from torchcell.io.fingerprint import record_fingerprint
from torchcell.io.matrices import LARGEST, dense, layer_of, too_large
from torchcell.io.quantities import DOSE, TIME

if TYPE_CHECKING:
    import anndata

    from torchcell.drug_response.molecules import Molecules


COLUMNS: dict[str, str] = {
    "drug": "perturbation",
    "dose_value": "dose_value",
    "time": "time",
    "cell_line": "cell_line",
    "plate": "plate",
}
"""Field of the record -> its column in the ``obs`` of an h5ad file."""

OPTIONAL: dict[str, str] = {"smiles": "smiles", "inchikey": "inchikey", "source": "source"}
"""The same for fields that a file may lack."""

UNKNOWN_PLATE = ""
"""The plate of a sample that is asked for: ``predict`` knows the treated wells of no plate."""


@dataclass(frozen=True, eq=False)
class Response:
    """Treated and control expression of n samples over G genes.

    Attributes:
        name: Short name, e.g. ``l1000_level3``.
        treated: Expression after the drug, float32 [n, G].
        control: Expression of the sample's own control, float32 [n, G].
        drug: Names [n].
        dose_value: Concentration in µM, float32 [n]; 0 is a vehicle.
        time: Hours of exposure, float32 [n].
        cell_line: Names [n].
        plate: Names [n].
        genes: Gene names [G], each once.
        sample_id: Unique names of the samples [n].
        smiles: Structures [n], empty where unknown; or none at all.
        inchikey: Likewise.
        source: Study or batch of plates that a sample comes from [n]; or none.
        basal: Expression of the untreated line where that is no control of the sample, as with signatures that are
            changes already, float32 [n, G]; none: the control is the basal profile.
        plate_mean: Mean treated expression of other wells of the sample's plate, see ``plate_center``, where a model
            may know them, float32 [n, G]; none: it may not, as in a request.
        columns: Further texts a sample, such as mechanism of action, name -> [n].
        molecules: What is known of each drug, see ``molecules``; none before features were chosen.
        dropped: What parsing left out and how many of each.
        notes: What was assumed while reading.
    """

    name: str
    treated: np.ndarray
    control: np.ndarray
    drug: np.ndarray
    dose_value: np.ndarray
    time: np.ndarray
    cell_line: np.ndarray
    plate: np.ndarray
    genes: np.ndarray
    sample_id: np.ndarray
    smiles: np.ndarray | None = None
    inchikey: np.ndarray | None = None
    source: np.ndarray | None = None
    basal: np.ndarray | None = None
    plate_mean: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    molecules: Molecules | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def target(self) -> np.ndarray:
        """Treated expression [n, G]; every record kind names its target so."""
        return self.treated

    @property
    def task(self) -> str:
        """What the target is: one value per gene, scored as a change from the control."""
        return "response"

    @property
    def contents(self) -> dict[str, int]:
        """What the samples hold, counts by a noun, for the report."""
        names = {"drug": self.drug, "cell line": self.cell_line, "plate": self.plate, "gene": self.genes}
        return {
            "condition": len(np.unique(self.condition)),
            **{name: len(np.unique(one)) for name, one in names.items()},
        }

    @property
    def condition(self) -> np.ndarray:
        """Line, drug, dose and time of each sample as one text [n]: replicates share it, and so do salts of a drug."""
        from torchcell.drug_response.drug_identity import drug_forms

        parts = zip(self.cell_line, drug_forms(self), self.dose_value.tolist(), self.time.tolist(), strict=True)
        return np.array([f"{line}|{drug}|{dose:g}|{time:g}" for line, drug, dose, time in parts])

    @property
    def drug_index(self) -> np.ndarray:
        """Row of each sample's drug in ``molecules``, int64 [n]."""
        if self.molecules is None:
            raise InputError(f"{self.name}: no molecule features were chosen; set data.molecules")
        return self.molecules.positions(self.drug)

    @property
    def phenotype_names(self) -> tuple[str, ...]:
        """Names of the target's columns: the genes."""
        return tuple(self.genes.tolist())

    def subset(self, index: np.ndarray) -> Response:
        """The samples at ``index`` (integers or a mask), in that order; the gene list stays whole."""
        at = as_positions(index)
        per_sample = (*COLUMNS, *OPTIONAL, "treated", "control", "basal", "plate_mean", "sample_id")
        values: dict[str, Any] = {name: getattr(self, name) for name in per_sample}
        columns = {name: texts[at] for name, texts in self.columns.items()}
        return replace(self, columns=columns, **{name: v[at] for name, v in values.items() if v is not None})

    def blind(self) -> Response:
        """The same samples with nothing to be seen of what was measured after the treatment."""
        return replace(self, treated=np.broadcast_to(np.float32(np.nan), self.treated.shape))

    def as_request(self) -> Response:
        """The same samples as ``predict`` is asked for them: with their own controls, and nothing of their plates."""
        plate = np.full(len(self), UNKNOWN_PLATE)
        return replace(self.blind(), plate=plate, source=None, inchikey=None, plate_mean=None, columns={})

    def on_lines(self, cell_lines: str | Sequence[str] | None) -> Response:
        """The samples of one cell line, of several, or all (none named); an unknown line is an error."""
        if cell_lines is None:
            return self
        wanted = [cell_lines] if isinstance(cell_lines, str) else list(cell_lines)
        present = np.unique(self.cell_line).tolist()
        lacking = [line for line in wanted if line not in present]
        if lacking or not wanted:
            raise InputError(f"{self.name}: no cell line {some(lacking)}; the lines are {', '.join(present)}")
        return self.subset(np.isin(self.cell_line, wanted))

    def on_genes(self, genes: Sequence[str] | np.ndarray) -> Response:
        """The same samples over ``genes`` in that order, found by name; a gene that is not measured is an error."""
        column_of = {gene: i for i, gene in enumerate(self.genes.tolist())}
        lacking = [gene for gene in np.asarray(genes).tolist() if gene not in column_of]
        if lacking:
            hint = near(lacking[0], list(column_of))
            raise InputError(
                f"{self.name}: {len(lacking)} of {len(genes)} genes are not measured: {some(lacking)}; "
                + (f"the nearest to the first are {hint}" if hint else "name them as the file's genes are named")
            )
        at = np.array([column_of[gene] for gene in np.asarray(genes).tolist()], dtype=np.int64)
        values = {part: getattr(self, part) for part in ("treated", "control", "basal", "plate_mean")}
        return replace(self, genes=self.genes[at], **{part: v[:, at] for part, v in values.items() if v is not None})

    def fingerprint(self) -> str:
        """A hash over all values and names, also of the molecules, not over ``name``, ``dropped`` and ``notes``."""
        return record_fingerprint(self)

    def validate(self) -> Response:
        """Return self, or raise one ``InputError`` that names the offending samples or genes."""
        n, n_genes, ids = len(self.sample_id), len(self.genes), self.sample_id
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*COLUMNS, *OPTIONAL), (n,))
        shapes |= dict.fromkeys(("treated", "control", "basal", "plate_mean"), (n, n_genes))
        refuse_shapes(self.name, vars(self), shapes)
        refuse_shapes(self.name, self.columns, dict.fromkeys(self.columns, (n,)))
        refuse_repeats(self.name, ids, "sample ids")
        refuse_repeats(self.name, self.genes, "genes")
        for part in ("treated", "control", *(["basal"] if self.basal is not None else [])):
            odd = too_large(getattr(self, part), ids, self.genes)
            what = f"{part} expression that is not finite, or beyond {LARGEST:g}"
            refuse(self.name, odd, what, "drop the rows or mend them")
        for part, unit in (("dose_value", "dose in µM"), ("time", "time in h")):
            value = getattr(self, part)
            refuse(self.name, ids[~np.isfinite(value)], f"no {unit}", f"give {part} a number")
            refuse(self.name, ids[value < 0], f"a negative {unit}", f"mend {part}; -666 marks a missing value")
        for part in ("drug", "cell_line", "plate"):
            refuse(self.name, ids[getattr(self, part) == ""], f"no {part}", "name it or drop the rows")
        return self

    def to_anndata(self) -> anndata.AnnData:
        """``X`` treated, layers ``control`` and ``basal``, ``obs`` under the names of ``COLUMNS`` and ``OPTIONAL``.

        ``dose_unit`` and ``time_unit`` tell the units.
        """
        import anndata
        import pandas as pd

        obs = pd.DataFrame({COLUMNS[name]: getattr(self, name) for name in COLUMNS}, index=self.sample_id)
        obs = obs.assign(dose_unit=DOSE.assumed, time_unit=TIME.assumed)
        for name, internal in OPTIONAL.items():
            if getattr(self, name) is not None:
                obs[internal] = getattr(self, name)
        for name, values in self.columns.items():
            obs[name] = values
        var = pd.DataFrame(index=self.genes)
        layers = {"control": self.control} | ({} if self.basal is None else {"basal": self.basal})
        return anndata.AnnData(self.treated, obs=obs, var=var, layers=layers)

    @classmethod
    def from_anndata(
        cls,
        adata: anndata.AnnData,
        columns: Mapping[str, str] | None = None,
        name: str = "response",
        control_layer: str = "control",
        keep: Sequence[str] = (),
    ) -> Response:
        """Read a record from AnnData; ``validate`` it afterwards.

        Args:
            adata: ``X`` is treated expression; samples and genes are named by ``obs`` and ``var``; doses and times are
                numbers or texts with a unit (``500 nM``), else the units stand in ``dose_unit`` and ``time_unit``, or
                are taken to be µM and h, of which a note tells.
            columns: Internal name (see ``columns.NAMES``) -> name in ``obs``, for those that differ, e.g.
                ``{"dose_value": "dose_um"}``.
            name: Name of the record.
            control_layer: Layer with each sample's control; a layer ``basal`` is read where there is one.
            keep: Further columns of ``obs`` to hold as texts, e.g. mechanism of action.

        Raises:
            InputError: A column, ``X`` or the layer is missing, a key of ``columns`` is no internal name, a dose or
                time is text that is no number with a known unit.
        """
        ids = adata.obs_names.to_numpy().astype(str)
        found = TreatmentColumns(name, adata.obs, columns or {}, ids, unread=("sample_id",))
        found.refuse_missing(COLUMNS)
        if control_layer not in adata.layers:
            raise InputError(f"{name}: no layer {control_layer!r}; the file has {list(adata.layers)}")
        values, genes = layer_of(adata, None, name)
        dose, time, notes = found.amounts()
        optional: dict[str, Any] = {part: found.texts(part) for part in OPTIONAL if found.named[part]}
        return cls(
            name=name,
            treated=dense(values),
            control=dense(adata.layers[control_layer]),
            drug=found.texts("drug"),
            dose_value=dose,
            time=time,
            cell_line=found.texts("cell_line"),
            plate=found.texts("plate"),
            genes=genes,
            sample_id=ids,
            basal=dense(adata.layers["basal"]) if "basal" in adata.layers else None,
            columns={part: texts(column(name, adata.obs, part)) for part in keep},
            notes=notes,
            **optional,
        )
