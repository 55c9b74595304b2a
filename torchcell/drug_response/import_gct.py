"""GCT or GCTX files to AnnData: L1000's annotations under our names, each well beside the control of its plate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from torchcell.drug_response.plates import line_plates, matched_controls
from torchcell.drug_response.structures import IDS, SMILES, structures_of
from torchcell.io.errors import InputError, column, near, refuse, refuse_repeats, some
from torchcell.io.gct import CHUNK, Gctx, read_gct
from torchcell.io.matrices import LARGEST, too_large
from torchcell.io.quantities import DOSE, TIME, assumed_unit, quantities, without_unit

if TYPE_CHECKING:
    import anndata
    import pandas as pd


NAMES: dict[str, tuple[str, ...]] = {
    "perturbation": ("pert_iname", "cmap_name", "pert_id"),
    "cell_line": ("cell_id", "cell_iname", "cell_mfc_name"),
    "dose_value": ("pert_dose", "pert_idose"),
    "dose_unit": ("pert_dose_unit",),
    "time": ("pert_time", "pert_itime"),
    "time_unit": ("pert_time_unit",),
    "plate": ("det_plate", "rna_plate", "brew_prefix"),
    "kind": ("pert_type",),
    "pert_id": ("pert_id",),
    "smiles": ("canonical_smiles", "smiles"),
    "inchikey": ("inchi_key", "inchikey"),
    "gene": ("pr_gene_symbol", "gene_symbol"),
    "gene_id": ("pr_gene_id", "gene_id"),
}
"""Internal name -> names in the files of LINCS, the first that is there counts."""

OF_GENES = ("gene", "gene_id")
OPTIONAL = ("dose_unit", "time_unit", "kind", "pert_id", "smiles", "inchikey", *OF_GENES)
VEHICLE = "ctl_vehicle"
"""``pert_type`` of a well that was given the vehicle alone."""
QUANTITIES = {"dose_value": (DOSE, "dose_unit"), "time": (TIME, "time_unit")}
"""What is measured -> how it is read, and where its unit stands."""
RESTRICTED = "restricted"
"""What the LINCS files say of a structure that is kept secret."""
SIGNATURES = "signatures"
"""How values that are changes already are matched: their control is zero."""
REMEDY = "mend them, or leave them out with drop_incomplete"


class _Wells(NamedTuple):
    """The wells of a file that are kept, before any control is matched: ``found`` holds the annotations [n] and [G]."""

    values: np.ndarray
    ids: np.ndarray
    found: dict[str, Any]
    is_control: np.ndarray
    lost: dict[str, int]
    notes: list[str]


def import_gct(
    path: str | Path | Sequence[str | Path],
    columns: Mapping[str, str] | None = None,
    control: str = VEHICLE,
    match: str = "centroid",
    seed: int = 0,
    drop_incomplete: bool = False,
    structures: str | Path | None = None,
) -> anndata.AnnData:
    """Read ``.gct``, ``.gct.gz`` or ``.gctx``, and match each well with the control of its plate.

    Args:
        path: A level-3 plate (expression), or with ``match=signatures`` a level-5 file (changes); or several, whose
            genes are matched by name. A plate is what has one name, in whichever files its wells stand.
        columns: Internal name (a key of ``NAMES``) -> the file's name, where it is none of ``NAMES``.
        control: Label of the control wells: their kind (``pert_type``), or else their perturbation, e.g. ``DMSO``.
        match: ``centroid`` (mean of the plate's control wells), ``paired`` (one of them for each well, seeded) or
            ``signatures`` (no control wells, zeros).
        seed: Of the pairs.
        drop_incomplete: Leave out wells without dose, time, line or value rather than refuse them.
        structures: A table of SMILES by pert_id, for files that tell none, see ``structures.structures_of``.

    Returns:
        ``X`` [n, G] with the layer ``control``; ``obs``: perturbation, pert_id, smiles, inchikey, cell_line,
        dose_value (µM, 0 in a control well), time (h), plate, kind, is_control; ``var``: symbols, and the (first)
        file's gene_id (symbols change with the years); ``uns['source']``: the files, ``uns['lost']``: what was left
        out, genes that only some of the files measure among it; ``uns['notes']``: units that were assumed, and what to
        do where no well has a structure.

    Raises:
        InputError: Unknown names, a dose that is negative or missing, a value that is missing, a plate without
            control wells, a well that stands in several files, files that share no gene; the message names the wells,
            plates or files.
    """
    from tqdm import tqdm

    paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
    label = None if match == SIGNATURES else control
    several = tqdm(paths, "import-gct", leave=False, disable=len(paths) < 2)
    read = [_wells(one, columns or {}, label, drop_incomplete, structures) for one in several]
    wells = read[0] if len(read) == 1 else _joined(paths, read)
    return _anndata(paths, wells, _matched(wells, match, seed))


def _wells(
    path: Path, columns: Mapping[str, str], control: str | None, drop_incomplete: bool, structures: str | Path | None
) -> _Wells:
    """The wells of one file; with no label of its ``control`` none is one."""
    with _opened(path) as (wells, genes, read):
        found = _annotations(path, wells, genes, columns)
        if structures is not None:
            found["smiles"], found["inchikey"] = structures_of(structures, found["pert_id"])
        ids = wells.index.to_numpy(str)
        is_control = np.zeros(len(ids), dtype=bool) if control is None else _controls(path, found, control)
        for name in ("smiles", "inchikey"):
            found[name] = np.where(found[name] == RESTRICTED, "", found[name])
        notes = [_read_numbers(path, ids, found, name, is_control, drop_incomplete) for name in QUANTITIES]
        found["dose_value"][is_control] = 0.0  # a vehicle; the files give it none
        others = np.char.startswith(found["kind"].astype(str), "ctl_") & ~is_control
        lacking = np.isnan(found["dose_value"]) | np.isnan(found["time"]) | (found["cell_line"] == "")
        kept = np.flatnonzero(~others & ~lacking if drop_incomplete else ~others)
        _refuse_bad(str(path), ids[kept], _of_wells(found, kept))
        values = read(kept)
    missing = np.isnan(values.min(1, initial=np.inf))  # the least of a row is NaN where one value is
    large = np.flatnonzero(np.maximum(values.max(1, initial=0), -values.min(1, initial=0)) > LARGEST)
    bad = too_large(values[large], ids[kept[large]], found["gene"])
    refuse(str(path), bad, f"a value that is infinite, or beyond {LARGEST:g}", "mend it; NA marks a missing one")
    if drop_incomplete:
        values, kept = _squeezed(values, ~missing), kept[~missing]
    else:
        refuse(str(path), ids[kept[missing]], "a missing value (-666, NA, #VALUE! and the like)", REMEDY)
    lost = {
        "wells of other controls": int(others.sum()),
        "wells without a dose, time, line or value": int((~others).sum()) - len(kept),
    }
    notes = [note for note in notes if note]
    return _Wells(values, ids[kept], _of_wells(found, kept), is_control[kept], lost, notes)


def _joined(paths: Sequence[Path], files: Sequence[_Wells]) -> _Wells:
    """The wells of several files over the genes that all measure, in the order of the first."""
    files_of: dict[str, list[str]] = {}
    for path, file in zip(paths, files, strict=True):
        for name in file.ids.tolist():
            files_of.setdefault(name, []).append(str(path))
    twice = [f"{name} in {' and '.join(where)}" for name, where in files_of.items() if len(where) > 1]
    if twice:
        raise InputError(f"{len(twice)} well(s) that stand in several files: {some(twice)}; give each well once")
    column_of = [{gene: i for i, gene in enumerate(file.found["gene"].tolist())} for file in files]
    shared = [gene for gene in column_of[0] if all(gene in of_file for of_file in column_of)]
    if not shared:
        raise InputError(
            f"{some(paths)} share no gene; the first has {some(column_of[0], 3)}; name a column of "
            "ids that all of them have: columns gene=NAME"
        )
    at = [np.array([of_file[gene] for gene in shared]) for of_file in column_of]
    found = {name: np.concatenate([file.found[name] for file in files]) for name in files[0].found}
    found |= {name: files[0].found[name][at[0]] for name in OF_GENES}
    lost = {what: sum(file.lost[what] for file in files) for what in files[0].lost}
    lost["genes that only some of the files measure"] = len(set().union(*column_of)) - len(shared)
    return _Wells(
        np.concatenate([file.values[:, genes] for file, genes in zip(files, at, strict=True)]),
        np.concatenate([file.ids for file in files]),
        found,
        np.concatenate([file.is_control for file in files]),
        lost,
        [f"{path}: {note}" for path, file in zip(paths, files, strict=True) for note in file.notes],
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, Callable[[np.ndarray], np.ndarray]]]:
    """What is told of wells and of genes, and what reads the values of chosen wells [k, G]: a GCTX holds many."""
    if path.suffix == ".gctx":
        with Gctx(path) as file:
            yield file.wells(), file.genes(), file.read
    elif path.name.removesuffix(".gz").endswith(".gct"):
        table = read_gct(path)
        every = len(table.wells)
        yield table.wells, table.genes, lambda at: table.values if len(at) == every else table.values[at]
    else:
        raise InputError(f"{path}: must be a .gct, .gct.gz or .gctx file")


def _of_wells(found: Mapping[str, Any], kept: np.ndarray) -> dict[str, Any]:
    """The annotations of some wells, and those of all genes."""
    return {name: values if name in OF_GENES else values[kept] for name, values in found.items()}


def _squeezed(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The rows that are kept, moved to the front in place: a second matrix may not fit."""
    rows = np.flatnonzero(kept)
    if len(rows) < len(kept):
        for begin in range(0, len(rows), CHUNK):
            part = rows[begin : begin + CHUNK]
            values[begin : begin + len(part)] = values[part]
    return values[: len(rows)]


def _annotations(path: Path, wells: pd.DataFrame, genes: pd.DataFrame, columns: Mapping[str, str]) -> dict[str, Any]:
    """Texts under our names [n], those of genes [G]; an optional one that the file lacks is empty."""
    for name in columns:
        if name not in NAMES:
            raise InputError(f"no internal column {name!r}; the nearest are {near(name, list(NAMES)) or list(NAMES)}")
    found = {}
    for name, usual in NAMES.items():
        held = genes if name in OF_GENES else wells
        wanted = columns.get(name) or next((known for known in usual if known in held), None)
        if wanted is not None:
            found[name] = _texts(column(str(path), held, wanted))
        elif name == "gene":
            found[name] = held.index.to_numpy(str)
        elif name in OPTIONAL:
            found[name] = np.full(len(held), "")
        else:
            raise InputError(
                f"{path}: none of {some(usual)} is there to tell the {name}; say columns {name}=NAME, one of "
                f"{some(held.columns, 12)}"
            )
    return found


def _texts(values: np.ndarray) -> np.ndarray:
    """Annotations as text, of numbers all digits (an id may be one), whole ones without a point."""
    if values.dtype.kind == "f":
        digits = ("" if value != value else np.format_float_positional(value, trim="-") for value in values)
        return np.array(list(digits), dtype=str)
    return values.astype(str)


def _controls(path: Path, found: Mapping[str, Any], label: str) -> np.ndarray:
    for name in ("kind", "perturbation", "pert_id"):
        if (found[name] == label).any():
            return found[name] == label
    kinds, drugs = (np.unique(found[name]).tolist() for name in ("kind", "perturbation"))
    raise InputError(
        f"{path}: no control wells: no kind and no perturbation is {label!r}; the kinds are {some(kinds)}; name the "
        f"vehicle with --control (control=), nearest perturbations: {near(label, drugs) or drugs[:5]}; or say "
        f"match={SIGNATURES} where the values are changes already"
    )


def _read_numbers(
    path: Path, ids: np.ndarray, found: dict[str, Any], name: str, is_control: np.ndarray, lenient: bool
) -> str:
    """Put the dose in µM or the time in h [n] in place of its texts, and say what was assumed of the unit.

    NaN where there is none, or none that can be read and ``lenient`` is set.
    """
    quantity, unit = QUANTITIES[name]
    values, units = found[name], found[unit]
    numbers, odd = quantities(values, units, quantity.factor)
    if odd.any() and not lenient:
        bad = [f"{i}: {value} {unit}".strip() for i, value, unit in zip(ids[odd], values[odd], units[odd], strict=True)]
        raise InputError(
            f"{path}: {len(bad)} well(s) whose {unit.removesuffix('_unit')} can't be read: {some(bad)}; the units "
            f"are {quantity.units}{quantity.remedy}; mend them, or leave them out with drop_incomplete"
        )
    found[name] = numbers
    return assumed_unit(name, np.where(is_control, np.nan, numbers), without_unit(values, units), quantity)


def _refuse_bad(record: str, ids: np.ndarray, found: Mapping[str, Any]) -> None:
    for what, bad in (
        ("no dose", np.isnan(found["dose_value"])), ("no time", np.isnan(found["time"])),
        ("no cell line", found["cell_line"] == ""),
    ):  # fmt: skip
        refuse(record, ids[bad], what, REMEDY)
    refuse(record, ids[found["dose_value"] < 0], "a negative dose", "mend it; -666 alone marks a missing one")
    refuse(record, ids[found["time"] < 0], "a negative time", "mend it; -666 alone marks a missing one")
    for name in ("perturbation", "plate"):
        refuse(record, ids[found[name] == ""], f"no {name}", f"name a column that tells it: columns {name}=NAME")
    refuse_repeats(record, found["gene"], "genes")


def _matched(wells: _Wells, match: str, seed: int) -> np.ndarray:
    if match == SIGNATURES:
        return np.zeros(wells.values.shape, dtype=np.float32)
    plates, remedy = (
        line_plates(wells.found["plate"], wells.found["cell_line"]),
        "give its name to --control (control=)",
    )
    return matched_controls(wells.values, plates, wells.is_control, match, seed, remedy)


def _without_structures(smiles: np.ndarray) -> list[str]:
    """What to do where no treated well has a SMILES, in a sentence; nothing where one has."""
    if not len(smiles) or (smiles != "").any():
        return []
    return [
        f"no SMILES: the files have no column {' or '.join(NAMES['smiles'])}, or nothing in it; give a table of "
        f"{' or '.join(IDS)} and {' or '.join(SMILES)} with --structures FILE, or name the column with --columns "
        "smiles=NAME; data.molecules may also take mechanisms or your own vectors by name"
    ]


def _anndata(paths: Sequence[Path], wells: _Wells, matched: np.ndarray) -> anndata.AnnData:
    import anndata
    import pandas as pd

    found = wells.found
    columns = ("perturbation", "pert_id", "smiles", "inchikey", "cell_line", "dose_value", "time", "plate", "kind")
    obs = pd.DataFrame({name: found[name] for name in columns}, index=wells.ids)
    obs = obs.assign(dose_unit=DOSE.assumed, time_unit=TIME.assumed, is_control=wells.is_control)
    var = pd.DataFrame({"gene_id": found["gene_id"]}, index=found["gene"])
    about = {
        "source": ", ".join(path.name for path in paths),
        "lost": {what: n for what, n in wells.lost.items() if n},
        "notes": [*wells.notes, *_without_structures(found["smiles"][~wells.is_control])],
    }
    return anndata.AnnData(wells.values, obs=obs, var=var, layers={"control": matched}, uns=about)
