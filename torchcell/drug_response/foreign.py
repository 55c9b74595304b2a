"""Predictions of other people's models for drug response: an h5ad with a row a treatment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from torchcell.core.foreign import Foreign, ForeignColumns, ForeignFormat, on_genes, refuse_repeated, refuse_undefined
from torchcell.drug_response.record import Response
from torchcell.io.cache import atomic_write
from torchcell.io.errors import InputError
from torchcell.io.h5ad import read_h5ad
from torchcell.io.in_memory import InMemory
from torchcell.io.matrices import dense, layer_of

COLUMNS = ("drug", "cell_line", "dose_value", "dose_unit", "time", "time_unit", "is_control")


def keys(record: Response) -> np.ndarray:
    """``line|drug|dose|time`` of each sample [n]: µM and h; replicates share it."""
    parts = zip(record.cell_line.tolist(), record.drug.tolist(), record.dose_value, record.time, strict=True)
    return np.array([f"{line}|{drug}|{dose:g}|{time:g}" for line, drug, dose, time in parts], dtype=str)


def others(record: Response, name: str) -> np.ndarray:
    """Time, and those of drug, dose and line that are not among the inputs that ``name`` joins."""
    from torchcell.drug_response.datamodule import JOINED

    known = {"drug": record.drug, "dose": record.dose_value, "line": record.cell_line}
    rest = [values for one, values in known.items() if one not in name.split(JOINED)]
    return np.array(["|".join(map(str, one)) for one in zip(record.time, *rest, strict=True)], dtype=str)


def start(record: Response) -> np.ndarray:
    """Mean control of each sample's line [n, G]: a prediction for a line and a drug knows no plate."""
    _, row = np.unique(record.cell_line, return_inverse=True)
    means = np.stack([record.control[row == line].mean(axis=0) for line in range(row.max() + 1)])
    return np.asarray(means[row])


def read(path: str | Path | InMemory, record: Response, how: ForeignColumns) -> Foreign:
    """Read predicted treatments: ``obs`` as ``predict`` takes it, ``X`` or a layer their expression, or its change.

    A change is taken from the mean control of the treatment's samples.

    Raises:
        InputError: As ``table.read_response_request``; a treatment twice; no gene in common; a change without a
            negative value.
    """
    from torchcell.drug_response.table import read_response_request

    how.refuse_unknown(path, COLUMNS)
    adata = read_h5ad(path)
    matrix, names = layer_of(adata, how.layer, str(path))
    adata.layers.clear()  # a request may bring controls: here the true ones count
    source: Any = InMemory(adata, path.name if isinstance(path, InMemory) else str(path))
    request = read_response_request(source, record.genes, how.columns)
    if len(request) != adata.n_obs:
        raise InputError(f"{path}: {adata.n_obs - len(request):,} rows are flagged as controls; leave them out")
    key = keys(request)
    refuse_repeated(path, key)
    values, notes = on_genes(path, dense(matrix), names, record.genes.astype(str))
    refuse_undefined(path, key, values[:, ~np.isnan(values).all(axis=0)])
    if how.values == "change":
        if not (values < 0).any():
            raise InputError(f"{path}: no value is negative: this is expression, not a change; say values=level")
        own = keys(record)
        for i, text in enumerate(key.tolist()):
            here = own == text
            if here.any():
                values[i] += record.control[here].mean(axis=0)
    return Foreign(key, values, tuple(notes))


def export(record: Response, part: np.ndarray, folder: Path, name: str) -> list[Path]:
    """Write ``data.h5ad``: ``X`` treated wells, the layer ``control``, and ``split`` in ``obs``."""
    path = folder / "data.h5ad"
    adata = record.to_anndata()
    adata.obs["split"] = part
    with atomic_write(path) as temporary:
        adata.write_h5ad(temporary)
    return [path]


FORMAT = ForeignFormat(keys, others, start, read, export)
