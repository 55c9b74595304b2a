"""Treatments to predict: a table of drugs, lines, doses and times, or an h5ad file with the user's own controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchcell.data.checks import column, flags, refuse
from torchcell.data.errors import InputError
from torchcell.data.h5ad import read_h5ad
from torchcell.data.matrices import LARGEST, dense, too_large
from torchcell.data.response import Response
from torchcell.data.response_columns import TreatmentColumns
from torchcell.data.response_file import FLAG
from torchcell.data.structures import refuse_rejected
from torchcell.data.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

UNREAD = ("inchikey", "source")
"""What of ``response_columns.NAMES`` a request does not tell."""


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
    told: dict[tuple[str, str], str] = {}  # a drug with its structure -> the first row that has them
    for name, structure, row in zip(drug.tolist(), smiles.tolist(), rows.tolist(), strict=True):
        told.setdefault((name, structure), row if name == structure else f"{row}, {name}")
    refuse_rejected(str(path), [(owner, structure) for (_, structure), owner in told.items()])
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
