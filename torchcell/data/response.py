"""``Response``: expression after a drug, beside the control of the same plate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from torchcell.data.checks import as_positions, column, refuse, refuse_repeats, refuse_shapes, texts
from torchcell.data.errors import InputError, near

if TYPE_CHECKING:
    import anndata

COLUMNS: dict[str, str] = {
    "drug": "perturbation",
    "dose_value": "dose_value",
    "time": "time",
    "cell_line": "cell_line",
    "plate": "plate",
}
"""Field of the record -> its column in the ``obs`` of an h5ad file; ``smiles`` is optional there."""


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
        lost: What parsing left out and how many of each.
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
    lost: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def target(self) -> np.ndarray:
        """Treated expression [n, G]; every record kind names its target so."""
        return self.treated

    @property
    def task(self) -> str:
        """What the target is: one value per gene."""
        return "expression"

    @property
    def phenotype_names(self) -> tuple[str, ...]:
        """Names of the target's columns: the genes."""
        return tuple(self.genes.tolist())

    def subset(self, index: np.ndarray) -> Response:
        """The samples at ``index`` (integers or a mask), in that order; the gene list stays whole."""
        at = as_positions(index)
        per_sample = (*COLUMNS, "treated", "control", "sample_id", "smiles")
        values = {name: getattr(self, name) for name in per_sample}
        return replace(self, **{name: v[at] for name, v in values.items() if v is not None})

    def validate(self) -> Response:
        """Return self, or raise one ``InputError`` that names the offending samples or genes."""
        n, n_genes, ids = len(self.sample_id), len(self.genes), self.sample_id
        per_sample = dict.fromkeys((*COLUMNS, "smiles"), (n,))
        refuse_shapes(self.name, vars(self), {"treated": (n, n_genes), "control": (n, n_genes), **per_sample})
        refuse_repeats(self.name, ids, "sample ids")
        refuse_repeats(self.name, self.genes, "genes")
        for part in ("treated", "control"):
            odd = ~np.isfinite(getattr(self, part)).all(1)
            refuse(self.name, ids[odd], f"{part} expression that is not finite", "drop the rows or mend them")
        for part, unit in (("dose_value", "dose in µM"), ("time", "time in h")):
            value = getattr(self, part)
            refuse(self.name, ids[~np.isfinite(value)], f"no {unit}", f"give {part} a number")
            refuse(self.name, ids[value < 0], f"a negative {unit}", f"mend {part}; -666 marks a missing value")
        for part in ("drug", "cell_line", "plate"):
            refuse(self.name, ids[getattr(self, part) == ""], f"no {part}", "name it or drop the rows")
        return self

    def to_anndata(self) -> anndata.AnnData:
        """``X`` treated, layer ``control``, ``obs`` columns under the names of ``COLUMNS``."""
        import anndata
        import pandas as pd

        obs = pd.DataFrame({COLUMNS[name]: getattr(self, name) for name in COLUMNS}, index=self.sample_id)
        if self.smiles is not None:
            obs["smiles"] = self.smiles
        var = pd.DataFrame(index=self.genes)
        return anndata.AnnData(self.treated, obs=obs, var=var, layers={"control": self.control})

    @classmethod
    def from_anndata(
        cls,
        adata: anndata.AnnData,
        columns: Mapping[str, str] | None = None,
        name: str = "response",
        control_layer: str = "control",
    ) -> Response:
        """Read a record from AnnData; ``validate`` it afterwards.

        Args:
            adata: ``X`` is treated expression; samples and genes are named by ``obs`` and ``var``.
            columns: Internal name (a value of ``COLUMNS``, or ``smiles``) -> name in ``obs``, for those
                that differ, e.g. ``{"dose_value": "dose_um"}``.
            name: Name of the record.
            control_layer: Layer with each sample's control.

        Raises:
            InputError: A column or the layer is missing, a key of ``columns`` is no internal name.
        """
        columns = columns or {}
        known = [*COLUMNS.values(), "smiles"]
        for key in columns:
            if key not in known:
                raise InputError(f"{name}: no internal column {key!r}; the nearest are {near(key, known) or known}")
        if control_layer not in adata.layers:
            raise InputError(f"{name}: no layer {control_layer!r}; the file has {list(adata.layers)}")
        found = {part: column(name, adata.obs, columns.get(internal, internal)) for part, internal in COLUMNS.items()}
        smiles = columns.get("smiles", "smiles")
        return cls(
            name=name,
            treated=_dense(adata.X),
            control=_dense(adata.layers[control_layer]),
            drug=texts(found["drug"]),
            dose_value=found["dose_value"].astype(np.float32),
            time=found["time"].astype(np.float32),
            cell_line=texts(found["cell_line"]),
            plate=texts(found["plate"]),
            genes=adata.var_names.to_numpy().astype(str),
            sample_id=adata.obs_names.to_numpy().astype(str),
            smiles=texts(column(name, adata.obs, smiles)) if smiles in adata.obs or "smiles" in columns else None,
        )


def _dense(matrix: object) -> np.ndarray:
    dense = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    return np.asarray(dense, dtype=np.float32)
