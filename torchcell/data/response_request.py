"""Treatments to predict: a table of drugs, lines, doses and times, or an h5ad file with the user's own controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchcell.data.checks import column, flags, refuse
from torchcell.data.errors import InputError, near, some
from torchcell.data.quantities import TO_HOURS, TO_MICROMOLAR, read_quantities
from torchcell.data.response import Response, dense
from torchcell.data.response_file import FLAG, read_h5ad
from torchcell.data.structures import refuse_rejected
from torchcell.data.tables import read_table, text_cells

if TYPE_CHECKING:
    import pandas as pd

READ: dict[str, tuple[str, ...]] = {
    "drug": ("drug", "perturbation"),
    "smiles": ("smiles",),
    "cell_line": ("cell_line",),
    "dose_value": ("dose_value",),
    "time": ("time",),
    "plate": ("plate",),
    "sample_id": ("sample_id",),
}
"""What a request tells, and the columns that tell it."""


def read_response_request(
    path: str | Path, genes: Sequence[str] | np.ndarray, columns: Mapping[str, str] | None = None
) -> Response:
    """Read treatments to predict, one row each.

    A table (``.csv``, ``.tsv``, ``.parquet``) has the columns drug or smiles or both, cell_line, dose_value (µM; a unit
    may follow, ``500 nM``) and time (h), and at will plate and sample_id. An h5ad file has the same columns in ``obs``
    (and perturbation for drug), and at will the layers ``control`` and ``basal``, whose genes are matched by name;
    wells that it flags as ``is_control`` are left out.

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
        odd = ~np.isfinite(values).all(1) & ~np.isnan(values).all(1)
        refuse(str(path), record.sample_id[odd], f"{part} expression that is not finite", "give all genes or none")
    return record


def _record(path: str | Path, table: pd.DataFrame, columns: Mapping[str, str], genes: np.ndarray) -> Response:
    for name in [*columns]:
        if name not in READ and name != "perturbation":
            raise InputError(f"no internal column {name!r}; the nearest are {near(name, list(READ)) or list(READ)}")
    named = {name: _column(path, table, columns, name) for name in READ}
    if named["drug"] is None and named["smiles"] is None:
        raise InputError(f"{path} has no column drug and no column smiles; it has {some(table.columns, 12)}")
    lacking = [name for name in ("cell_line", "dose_value", "time") if named[name] is None]
    if lacking:
        raise InputError(f"{path} has no column {some(lacking)}; it has {some(table.columns, 12)}")
    cells = {name: np.array(text_cells(table, found or ""), dtype=str) for name, found in named.items()}
    drug = np.where(cells["drug"] != "", cells["drug"], cells["smiles"])
    rows = np.array([f"row {i + 2}" for i in range(len(table))])
    told: dict[tuple[str, str], str] = {}  # a drug with its structure -> the first row that has them
    for name, structure, row in zip(drug.tolist(), cells["smiles"].tolist(), rows.tolist(), strict=True):
        told.setdefault((name, structure), row if name == structure else f"{row}, {name}")
    refuse_rejected(str(path), [(owner, structure) for (_, structure), owner in told.items()])
    index = rows if isinstance(table.index[0], int | np.integer) else table.index.to_numpy().astype(str)
    ids = cells["sample_id"] if named["sample_id"] else index
    blank = np.broadcast_to(np.float32(0), (len(table), len(genes)))
    record = Response(
        name=Path(path).stem,
        treated=blank,
        control=blank,
        drug=drug,
        dose_value=read_quantities(str(path), rows, "dose_value", cells["dose_value"], TO_MICROMOLAR),
        time=read_quantities(str(path), rows, "time", cells["time"], TO_HOURS),
        cell_line=cells["cell_line"],
        plate=np.where(cells["plate"] != "", cells["plate"], "request"),
        genes=genes,
        sample_id=ids,
        smiles=cells["smiles"],
    ).validate()
    unknown = np.broadcast_to(np.float32(np.nan), blank.shape)
    return replace(record, treated=unknown, control=unknown, plate=cells["plate"])  # "" is UNKNOWN_PLATE


def _column(path: str | Path, table: pd.DataFrame, columns: Mapping[str, str], name: str) -> str | None:
    """The file's name of a column, none where it has no such column."""
    mapped = columns.get(name) or (columns.get("perturbation") if name == "drug" else None)
    if mapped is not None and mapped not in table:
        present = [str(column) for column in table.columns]
        raise InputError(f"{path} has no column {mapped!r}; the nearest are {near(mapped, present) or present}")
    return mapped or next((known for known in READ[name] if known in table), None)
