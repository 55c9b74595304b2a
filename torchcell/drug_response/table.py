"""A user's drug response as h5ad, all that is wrong with one, and requests for treatments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hydra.utils import get_class

from torchcell.core.prediction_notes import Notes, between, is_outside, unless_known
from torchcell.drug_response.columns import NAMES, TreatmentColumns
from torchcell.drug_response.drug_identity import one_structure, parent_key
from torchcell.drug_response.molecules import Molecules, borrowings, drug_structures
from torchcell.drug_response.plates import MATCHES, line_plates, matched_controls
from torchcell.drug_response.record import COLUMNS, Response
from torchcell.drug_response.spec import DrugResponseSpec, MoleculeList, PackedGraphs
from torchcell.drug_response.structures import canonical, refuse_rejected
from torchcell.io.configurable import check_config, configurable
from torchcell.io.errors import InputError, column, flags, near, refuse, some
from torchcell.io.h5ad import read_h5ad
from torchcell.io.labels import controls_in
from torchcell.io.matrices import LARGEST, dense, layer_of, too_large
from torchcell.io.quantities import LEAST_DOSE
from torchcell.io.tables import read_table

if TYPE_CHECKING:
    import anndata
    import pandas as pd


FLAG = "is_control"


@configurable
@dataclass(frozen=True)
class ControlOptions:
    """Where each sample's control comes from.

    Attributes:
        layer: Of the file, with each sample's control.
        match: ``centroid`` or ``paired``, see ``matched_controls``; plays no part where there is such a layer.
        seed: Of the pairs.
    """

    layer: str = "control"
    match: str = "centroid"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.match not in MATCHES:
            raise InputError(f"data.record.controls.match={self.match!r} is one of {', '.join(MATCHES)}")


@configurable
def response_file(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    cell_lines: str | Sequence[str] | None = None,
    controls: ControlOptions | None = None,
    layer: str | None = None,
    keep: Sequence[str] = (),
    conflicting_smiles: str = "error",
    name: str | None = None,
) -> Response:
    """Read an h5ad file: ``X`` expression, ``obs`` perturbation, cell_line, dose_value, time, plate.

    Doses and times become µM and h by the units in their cells or in ``dose_unit`` and ``time_unit``; see
    ``columns.NAMES`` for the names that are understood.

    The controls are the layer ``controls.layer`` where the file has it, as ``import-gct`` writes; else the wells that
    ``obs`` flags as ``is_control``, matched within each plate and line. Control wells are no samples.

    Args:
        path: The file.
        columns: Internal name -> name in ``obs``, for those that differ; also ``is_control``, dose_unit, time_unit,
            smiles, inchikey, source.
        cell_lines: One line, several, or all.
        controls: Where they come from; none: the defaults.
        layer: Take the expression from this layer instead of ``X``; ``raw``: that and the genes of ``adata.raw``.
        keep: Further columns of ``obs`` to hold, e.g. mechanism of action.
        conflicting_smiles: Of a drug with SMILES of several molecules: ``error`` where structures are needed, or take
            the ``first`` row's or that of the ``majority`` of its rows.
        name: Of the record; by default the file's.

    Raises:
        InputError: No such file, neither a layer nor a flag of controls, a plate without control wells, a missing or
            negative dose; the message names the samples, plates or columns.
    """
    name, columns, controls = name or Path(path).stem, dict(columns or {}), controls or ControlOptions()
    adata = _with_layer(read_h5ad(path), layer, path)
    flag = columns.pop(FLAG, FLAG)
    flagged = flags(name, flag, column(name, adata.obs, flag)) if flag in adata.obs or flag != FLAG else None
    if controls.layer not in adata.layers:
        if flagged is None:
            raise InputError(
                f"{path} tells no controls: it has neither a layer {controls.layer!r} (layers: {list(adata.layers)}) "
                f"nor a column {FLAG!r} in obs; add one, or name yours with columns: {{{FLAG}: NAME}}"
            )
        found = TreatmentColumns(name, adata.obs, columns, adata.obs_names.to_numpy().astype(str))
        found.refuse_missing(COLUMNS)
        plates = line_plates(found.texts("plate"), found.texts("cell_line"))
        adata.layers[controls.layer] = matched_controls(
            dense(adata.X), plates, flagged, controls.match, controls.seed, f"flag its wells in obs[{flag!r}]"
        )
    if flagged is not None:
        adata = adata[~flagged].copy()
    record = one_structure(Response.from_anndata(adata, columns, name, controls.layer, keep), conflicting_smiles)
    return record.on_lines(cell_lines).validate()


def _with_layer(adata: anndata.AnnData, layer: str | None, path: str | Path) -> anndata.AnnData:
    """The same samples with the values of ``layer`` as ``X``."""
    import anndata
    import pandas as pd

    values, genes = layer_of(adata, layer, path)
    if np.array_equal(genes, adata.var_names.to_numpy().astype(str)):
        adata.X = values
        return adata
    return anndata.AnnData(values, obs=adata.obs, var=pd.DataFrame(index=genes))  # layers are over other genes


def response_faults(path: Path, columns: Mapping[str, str]) -> list[str]:
    """All that is wrong with the table of a drug response, each once; the reader stops at the first."""
    adata, wrong = read_h5ad(path), []
    table = adata.obs

    def columns_found() -> TreatmentColumns:
        found = TreatmentColumns(path.stem, table, columns, table.index.to_numpy().astype(str))
        found.refuse_missing(COLUMNS)
        return found

    looks: list[Callable[[], object]] = [lambda: columns_found().amounts()]
    if FLAG in table:
        looks.append(lambda: flags(path.stem, FLAG, column(path.stem, table, FLAG)))
    for look in looks:
        try:
            look()
        except InputError as error:
            wrong.append(str(error))
    if FLAG not in table and "control" not in adata.layers:
        drug = columns.get("drug") or next(name for name in NAMES["drug"] if name in table)
        said = f"{path} tells no controls: it has neither a layer 'control' nor a column {FLAG!r} in obs"
        likely = controls_in(table[drug])
        remedy = f"adata.obs[{FLAG!r}] = adata.obs[{drug!r}].isin({likely})"
        wrong.append(f"{said}; " + (f"the wells of {some(likely)} look like them: {remedy}" if likely else "add one"))
    return wrong


UNREAD = ("inchikey", "source")
"""What of ``columns.NAMES`` a request does not tell."""


def read_response_request(
    path: str | Path, genes: Sequence[str] | np.ndarray, columns: Mapping[str, str] | None = None
) -> Response:
    """Read treatments to predict, one row each.

    A table (``.csv``, ``.tsv``, ``.parquet``) has the columns drug (or perturbation) or smiles or both, cell_line,
    dose_value (or dose) and time, and at will plate and sample_id. Units stand in the cells (``500 nM``) or in
    ``dose_unit`` and ``time_unit``; without them doses are µM and times h, of which a note tells. An h5ad file has the
    same columns in ``obs``, and at will the layers ``control`` and ``basal``, whose genes are matched by name; wells
    that it flags as ``is_control`` are left out.

    Args:
        path: The file.
        genes: Genes of the answer [G].
        columns: Internal name -> the file's name, for those that differ; of an h5ad file also ``is_control``.

    Returns:
        A record whose ``treated`` is NaN [n, G]; so are rows of ``control`` and ``basal`` that the file does not give,
        and ``basal`` is none where it has no such layer.

    Raises:
        InputError: A missing column, a row without drug or line, a missing or negative dose or time, SMILES that rdkit
            rejects, a gene that is not measured, a control that is given in part, a flag that is neither true nor
            false, no row at all; the message names the rows.
    """
    columns = dict(columns or {})
    if Path(path).suffix != ".h5ad":
        return _record(path, read_table(path), columns, np.asarray(genes).astype(str))
    adata, flag = read_h5ad(path), columns.pop(FLAG, FLAG)
    if flag in adata.obs or flag != FLAG:
        adata = adata[~flags(str(path), flag, column(str(path), adata.obs, flag))].copy()
    if not adata.n_obs:
        raise InputError(f"{path} has no row to predict: it is empty, or all its wells are flagged as {flag}")
    given = [part for part in ("control", "basal") if part in adata.layers]
    if not given:
        return _record(path, adata.obs, columns, np.asarray(genes).astype(str))
    record = _record(path, adata.obs, columns, adata.var_names.to_numpy().astype(str))
    layers: dict[str, Any] = {part: dense(adata.layers[part]) for part in given}
    record = replace(record, **layers).on_genes(genes)
    for part in given:
        values = getattr(record, part)
        given_rows = np.flatnonzero(~np.isnan(values).all(1))
        odd = too_large(values[given_rows], record.sample_id[given_rows], record.genes)
        what = f"{part} expression that is not finite, or beyond {LARGEST:g}"
        refuse(str(path), odd, what, "give all genes or none")
    return record


def _record(path: str | Path, table: pd.DataFrame, columns: Mapping[str, str], genes: np.ndarray) -> Response:
    rows = np.array([f"row {i + 2}" for i in range(len(table))])
    found = TreatmentColumns(str(path), table, columns, rows, UNREAD)
    found.refuse_missing(("cell_line", "dose_value", "time"), either=("drug", "smiles"))
    smiles = found.texts("smiles")
    drug = np.where((named := found.texts("drug")) != "", named, smiles)
    first_row: dict[tuple[str, str], str] = {}  # a drug with its structure -> the first row that has them
    for name, structure, row in zip(drug.tolist(), smiles.tolist(), rows.tolist(), strict=True):
        first_row.setdefault((name, structure), row if name == structure else f"{row}, {name}")
    refuse_rejected(str(path), [(owner, structure) for (_, structure), owner in first_row.items()])
    index = rows if isinstance(table.index[0], int | np.integer) else table.index.to_numpy().astype(str)
    blank = np.broadcast_to(np.float32(0), (len(table), len(genes)))
    plate = found.texts("plate")
    dose, time, notes = found.amounts()
    record = Response(
        name=Path(path).stem,
        treated=blank,
        control=blank,
        drug=drug,
        dose_value=dose,
        time=time,
        cell_line=found.texts("cell_line"),
        plate=np.where(plate != "", plate, "request"),
        genes=genes,
        sample_id=found.texts("sample_id") if found.named["sample_id"] else index,
        smiles=smiles,
        notes=notes,
    ).validate()
    unknown = np.broadcast_to(np.float32(np.nan), blank.shape)
    return replace(record, treated=unknown, control=unknown, plate=plate)  # "" is UNKNOWN_PLATE


def response_notes(record: Response, spec: DrugResponseSpec) -> Notes:
    """Drugs and cell lines without training samples; doses and times outside the trained range."""
    table = spec.molecules
    drugs = [name for name, trained in zip(table.id, table.trained.tolist(), strict=True) if trained]
    notes = {
        "drug without training samples": unless_known("no training sample of", record.drug, drugs),
        "unseen cell line": unless_known("no training sample of cell line", record.cell_line, spec.lines),
    }
    ranges = {
        "dose": (np.maximum(record.dose_value, LEAST_DOSE), spec.dose_range, "µM"),
        "time": (np.maximum(record.time, 1.0), spec.time_range, "h"),
    }
    for what, (values, bounds, unit) in ranges.items():
        outside = is_outside(values, bounds)
        notes[f"{what} outside the trained range"] = [
            f"trained on {what}s of {between(bounds)} {unit}, not {value:.4g}" if odd else ""
            for value, odd in zip(values.tolist(), outside.tolist(), strict=True)
        ]
    return notes


FEATURES_FROM = "torchcell.drug_response.molecules."
"""Where a class that a checkpoint names may come from."""


def read_treatments(path: str, spec: DrugResponseSpec, columns: Mapping[str, str] | None = None) -> Response:
    """Read ``drug`` and / or ``smiles``, ``cell_line``, ``dose_value`` and ``time``, with units; one row a sample.

    An h5ad file may bring the layers ``control`` and ``basal``, and those are kept; a sample without them stands on its
    line's mean of the training part. Drugs are told by name, else by structure, a salt being its base; one that is new
    needs a SMILES, and features that can be made of one.

    Args:
        path: A ``.csv``, ``.tsv`` or ``.parquet`` file, or ``.h5ad``, see ``torchcell.drug_response.table``.
        spec: Of a model of drug response.
        columns: Internal name -> the file's name, for those that differ.

    Returns:
        Samples without a measurement; their molecules are those of the spec, then the new ones.

    Raises:
        InputError: A missing column; a line that the model was not trained on, without a control of its own; a drug
            that the model cannot know, named with its nearest ones; a known drug with another structure.
    """

    request = read_response_request(path, np.array(spec.genes), columns)
    return _with_molecules(_with_controls(request, spec, path), _table(spec), path)


def _with_controls(request: Response, spec: DrugResponseSpec, path: str) -> Response:
    """The file's own controls and basal profiles; where it gives none, the training means of the line."""
    control = _filled(request.control, "control", spec.line_control, request.cell_line, spec.lines, path)
    if torch.equal(spec.line_basal, spec.line_control):  # the control is the basal profile
        basal = None if request.basal is None else np.where(np.isnan(request.basal), control, request.basal)
        return replace(request, control=control, basal=basal)
    given = np.full_like(request.control, np.nan) if request.basal is None else request.basal
    basal = _filled(given, "basal", spec.line_basal, request.cell_line, spec.lines, path)
    return replace(request, control=control, basal=basal)


def _filled(
    given: np.ndarray, part: str, mean: torch.Tensor, line: np.ndarray, lines: tuple[str, ...], path: str
) -> np.ndarray:
    """Rows that are not given (NaN) get their line's mean of ``mean`` [L, G]; float32 [n, G]."""
    bare = np.isnan(given).any(1)
    unknown = sorted(set(line[bare].tolist()) - set(lines))
    if unknown:
        hint = near(unknown[0], lines) or list(lines[:5])
        raise InputError(
            f"{path}: lines that the model was not trained on: {some(unknown)}; the nearest are {hint}; another line "
            f"needs a layer {part!r} of its own, in an h5ad file"
        )
    filled = np.array(given, dtype=np.float32)
    filled[bare] = mean.numpy()[[lines.index(name) for name in line[bare].tolist()]]
    return filled


def extend_spec(record: Response, spec: DrugResponseSpec) -> DrugResponseSpec:
    """The spec with the molecules that ``record`` names besides those it was trained with."""
    known, table = spec.molecules, record.molecules
    assert table is not None
    if len(table) == len(known):
        return spec
    trained = torch.zeros(len(table), dtype=torch.bool)
    trained[: len(known)] = known.trained
    return replace(spec, molecules=molecule_list(table, trained))


def molecule_list(table: Molecules, trained: torch.Tensor) -> MoleculeList:
    """The molecules as a spec holds them.

    Args:
        table: D molecules.
        trained: Which of them training samples have, bool [D].
    """
    tensors = {} if table.graphs is None else {name: torch.from_numpy(part) for name, part in table.graphs.items()}
    return MoleculeList(
        id=tuple(table.id.tolist()),
        smiles=tuple(table.smiles.tolist()),
        vectors=torch.from_numpy(np.ascontiguousarray(table.vectors, dtype=np.float32)),
        known=torch.from_numpy(table.known),
        trained=trained,
        features=dict(table.features),
        graphs=PackedGraphs(**tensors) if tensors else None,
    )


def _table(spec: DrugResponseSpec) -> Molecules:
    molecules = spec.molecules
    graphs = None if molecules.graphs is None else {name: part.numpy() for name, part in vars(molecules.graphs).items()}
    return Molecules(
        np.array(molecules.id, dtype=str),
        np.array(molecules.smiles, dtype=str),
        molecules.vectors.numpy(),
        molecules.known.numpy(),
        molecules.features,
        graphs,
    )


def _with_molecules(request: Response, table: Molecules, path: str) -> Response:
    """Names as the table has them; what is new gets a row of its own."""
    structures = [(text, name) for text, name in zip(table.smiles.tolist(), table.id.tolist(), strict=True) if text]
    by_parent = {parent_key(text, name): name for text, name in reversed(structures)}  # the first of several forms
    by_structure = dict(structures)
    known = dict(zip(table.id.tolist(), table.smiles.tolist(), strict=True))
    smiles = np.full(len(request), "") if request.smiles is None else request.smiles
    given = sorted(
        set(zip(request.drug.tolist(), smiles.tolist(), strict=True)) - {(name, "") for name in request.drug}
    )
    alias = {
        name: by_structure.get(canonical(text, name)) or by_parent.get(parent_key(text, name), name)
        for name, text in given
        if name not in known
    }
    request = replace(request, drug=np.array([alias.get(name, name) for name in request.drug.tolist()]))
    _refuse_other_structures({(alias.get(name, name), text) for name, text in given}, known, path)
    new = ~np.isin(request.drug, table.id)
    if not new.any():
        return replace(request, molecules=table)
    bare = sorted(set(request.drug[new].tolist()) - {name for name, _ in given})
    if bare:
        hint = near(bare[0], list(known)) or sorted(known)[:5]
        raise InputError(
            f"{path}: drugs that the model does not know and that have no SMILES: {some(bare)}; give a column smiles, "
            f"or correct the names (the nearest to the first are {hint})"
        )
    return replace(request, molecules=table.joined(_made(replace(request.subset(new), molecules=None), table, path)))


def _refuse_other_structures(given: set[tuple[str, str]], known: Mapping[str, str], path: str) -> None:
    """Raise if a drug of the table is told with a SMILES of another molecule; salts and tautomers are the same one."""
    for name, text in sorted(given):
        theirs = known.get(name, "")
        if theirs and canonical(text, name) != theirs and parent_key(text, name) != parent_key(theirs, name):
            raise InputError(
                f"{path}: drug {name!r} has the SMILES {text!r}, and the model was trained with {theirs!r} for it; "
                "give the other molecule a name of its own, or leave the SMILES out"
            )


def _made(fresh: Response, table: Molecules, path: str) -> Molecules:
    """Rows of the drugs of ``fresh``, which the table lacks: by its features, else as drugs without a vector.

    A table that has such drugs goes with a model that learned a vector for them; any other refuses them by name.
    """
    names, smiles = drug_structures(fresh)
    try:
        made, why = _featurised(fresh, table), "has no vector of them"
    except InputError as error:
        made, why = None, f"can't make any: {error}"
    lacking = names if made is None else made.id[~made.known]
    if not len(lacking):
        assert made is not None
        if borrowed := borrowings(made):
            warnings.warn(
                f"{path}: drugs that the table of vectors lacks have the vector of the most similar molecule: "
                f"{some(borrowed, 20)}",
                stacklevel=2,
            )
        return made
    feature = str(table.features.get("_target_", "the features")).rpartition(".")[2]
    if table.known.all():
        raise InputError(
            f"{path}: drugs that the model does not know and has no vector for: {some(lacking)}; {feature} {why}; add "
            "them to the table of vectors, or leave them out"
        )
    warnings.warn(
        f"{path}: drugs without a vector: {some(lacking)}; {feature} {why}; they get the vector that the model learned "
        "for unknown molecules, which is the same for all of them",
        stacklevel=2,
    )
    if made is not None:
        return made
    graphs = None
    if table.graphs is not None:
        from torchcell.drug_response.molecules import pack_graphs

        graphs = pack_graphs([""] * len(names))
    vectors = np.zeros((len(names), table.vectors.shape[1]), dtype=np.float32)
    return Molecules(names, smiles, vectors, np.zeros(len(names), dtype=bool), table.features, graphs)


def _featurised(fresh: Response, table: Molecules) -> Molecules:
    """Rows of new drugs by the features of a checkpoint, whose class must be one of ours."""
    target = str(table.features.get("_target_", ""))
    if not target.startswith("torchcell."):
        raise InputError("the molecule features come from a table that has no row for them")
    check_config(dict(table.features))
    if not target.startswith(FEATURES_FROM):
        raise InputError(f"{target} makes no features of molecules, and nothing of it was run")
    arguments = {name: value for name, value in table.features.items() if name != "_target_"}
    made: Molecules = get_class(target)(**arguments)(fresh)
    return made
