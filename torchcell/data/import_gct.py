"""A GCT or GCTX file to AnnData: L1000's annotations under our names, each well beside the control of its plate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchcell.data.checks import column, refuse, refuse_repeats
from torchcell.data.errors import InputError, near, some
from torchcell.data.gct import AnnotatedMatrix, read_gct
from torchcell.data.gctx import CHUNK, Gctx
from torchcell.data.plate_controls import line_plates, matched_controls
from torchcell.data.quantities import TO_HOURS, TO_MICROMOLAR, quantities
from torchcell.data.structure_table import structures_of

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
SIGNATURES = "signatures"
"""How values that are changes already are matched: their control is zero."""
REMEDY = "mend them, or leave them out with drop_incomplete"


def import_gct(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    control: str = VEHICLE,
    match: str = "centroid",
    seed: int = 0,
    drop_incomplete: bool = False,
    structures: str | Path | None = None,
) -> anndata.AnnData:
    """Read ``.gct``, ``.gct.gz`` or ``.gctx``, and match each well with the control of its plate.

    Args:
        path: A level-3 plate (expression), or with ``match=signatures`` a level-5 file (changes).
        columns: Internal name (a key of ``NAMES``) -> the file's name, where it is none of ``NAMES``.
        control: Label of the control wells: their kind (``pert_type``), or else their perturbation, e.g. ``DMSO``.
        match: ``centroid`` (mean of the plate's control wells), ``paired`` (one of them for each well, seeded) or
            ``signatures`` (no control wells, zeros).
        seed: Of the pairs.
        drop_incomplete: Leave out wells without dose, time, line or value rather than refuse them.
        structures: A table of SMILES by pert_id, for files that tell none, see ``structure_table``.

    Returns:
        ``X`` [n, G] with the layer ``control``; ``obs``: perturbation, pert_id, smiles, inchikey, cell_line,
        dose_value (µM, 0 in a control well), time (h), plate, kind, is_control; ``var``: symbols, and the file's
        gene_id (symbols change with the years); ``uns['lost']``: what was left out.

    Raises:
        InputError: Unknown names, a dose that is negative or missing, a value that is missing, a plate without
            control wells; the message names the wells or plates.
    """
    path = Path(path)
    with _opened(path) as (wells, genes, read):
        found = _annotations(path, wells, genes, columns or {})
        if structures is not None:
            found["smiles"], found["inchikey"] = structures_of(structures, found["pert_id"])
        ids = wells.index.to_numpy(str)
        is_control = _controls(path, found, control) if match != SIGNATURES else np.zeros(len(ids), dtype=bool)
        found["dose_value"] = _numbers(path, ids, found, "dose", TO_MICROMOLAR, drop_incomplete)
        found["time"] = _numbers(path, ids, found, "time", TO_HOURS, drop_incomplete)
        found["dose_value"][is_control] = 0.0  # a vehicle; the files give it none
        others = np.char.startswith(found["kind"].astype(str), "ctl_") & ~is_control
        lacking = np.isnan(found["dose_value"]) | np.isnan(found["time"]) | (found["cell_line"] == "")
        kept = np.flatnonzero(~others & ~lacking if drop_incomplete else ~others)
        _refuse_bad(str(path), ids[kept], _of_wells(found, kept))
        values = read(kept)
    missing = np.isnan(values.min(1, initial=np.inf))  # the least of a row is NaN where one value is
    if drop_incomplete:
        values, kept = _squeezed(values, ~missing), kept[~missing]
    else:
        refuse(str(path), ids[kept[missing]], "a missing value (-666)", REMEDY)
    lost = {
        "wells of other controls": int(others.sum()),
        "wells without a dose, time, line or value": int((~others).sum()) - len(kept),
    }
    found, is_control, table = (
        _of_wells(found, kept),
        is_control[kept],
        AnnotatedMatrix(values, wells.iloc[kept], genes),
    )
    matched = _matched(values, found, is_control, match, seed)
    return _anndata(path, table, found, is_control, matched, {what: n for what, n in lost.items() if n})


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
        told = ("" if value != value else np.format_float_positional(value, trim="-") for value in values)
        return np.array(list(told), dtype=str)
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


def _numbers(
    path: Path, ids: np.ndarray, found: Mapping[str, Any], what: str, factor: Mapping[str, float], lenient: bool
) -> np.ndarray:
    """The dose in µM or the time in h [n]; NaN where there is none, or none that can be read and ``lenient`` is set."""
    values, units = found["dose_value" if what == "dose" else "time"], found[f"{what}_unit"]
    numbers, odd = quantities(values, units, factor)
    if odd.any() and not lenient:
        told = [
            f"{i}: {value} {unit}".strip() for i, value, unit in zip(ids[odd], values[odd], units[odd], strict=True)
        ]
        raise InputError(
            f"{path}: {len(told)} well(s) whose {what} can't be read: {some(told)}; units are "
            f"{', '.join(unit for unit in factor if unit)}; mend them, or leave them out with drop_incomplete"
        )
    return numbers


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


def _matched(values: np.ndarray, found: Mapping[str, Any], is_control: np.ndarray, match: str, seed: int) -> np.ndarray:
    if match == SIGNATURES:
        return np.zeros(values.shape, dtype=np.float32)
    plates = line_plates(found["plate"], found["cell_line"])
    return matched_controls(values, plates, is_control, match, seed, "give its name to --control (control=)")


def _anndata(
    path: Path,
    table: AnnotatedMatrix,
    found: Mapping[str, Any],
    is_control: np.ndarray,
    matched: np.ndarray,
    lost: dict,
) -> anndata.AnnData:
    import anndata
    import pandas as pd

    told = ("perturbation", "pert_id", "smiles", "inchikey", "cell_line", "dose_value", "time", "plate", "kind")
    obs = pd.DataFrame({name: found[name] for name in told}, index=table.wells.index.astype(str))
    obs["is_control"] = is_control
    var = pd.DataFrame({"gene_id": found["gene_id"]}, index=found["gene"])
    about = {"source": path.name, "lost": lost}
    return anndata.AnnData(table.values, obs=obs, var=var, layers={"control": matched}, uns=about)
