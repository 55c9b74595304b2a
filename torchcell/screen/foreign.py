"""Predictions of other people's models for screens: one row a set of genes, one column a phenotype."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from torchcell.core.foreign import Foreign, ForeignColumns, ForeignFormat, refuse_undefined
from torchcell.io.errors import InputError, some
from torchcell.io.in_memory import InMemory
from torchcell.io.tables import read_table, required_numbers
from torchcell.screen.record import Screen

COLUMNS = ("genes", "kinds", "levels", "prediction")


def keys(record: Screen) -> np.ndarray:
    """``gene`` of a deletion, else ``gene:type`` or ``gene:type:level``, in order, joined by ``|`` [n]."""
    level = np.full(len(record.gene), np.nan, dtype=np.float32) if record.level is None else record.level
    described = [
        f"{gene}{f':{kind}' if kind else ''}{'' if np.isnan(size) else f':{size:g}'}"
        for gene, kind, size in zip(
            record.genes[record.gene].tolist(), record.kind.tolist(), level.tolist(), strict=True
        )
    ]
    bounds = zip(record.ptr[:-1].tolist(), record.ptr[1:].tolist(), strict=True)
    return np.array(["|".join(sorted(described[a:b])) for a, b in bounds], dtype=str)


def others(record: Screen, name: str) -> np.ndarray:
    """Nothing: a sample is its perturbation."""
    return np.full(len(record), "")


def read(path: str | Path | InMemory, record: Screen, how: ForeignColumns) -> Foreign:
    """Read a table with ``genes`` (joined by ``|``), at will ``kinds`` and ``levels``, and a column a phenotype.

    A screen of one phenotype may call its column ``prediction``.

    Raises:
        InputError: A missing column, rows that can't be read, a set twice, a value that is not finite.
    """
    from torchcell.screen.table import read_perturbations

    how.refuse_unknown(path, (*COLUMNS, *record.phenotype_names))
    if how.values == "change":
        raise InputError("values=change: a phenotype has no control to add; give the phenotype itself")
    table = read_table(path).rename(columns={theirs: ours for ours, theirs in how.columns.items()})
    outputs = list(record.phenotype_names)
    if len(outputs) == 1 and outputs[0] not in table and "prediction" in table:
        table = table.rename(columns={"prediction": outputs[0]})
    if lacking := [name for name in outputs if name not in table]:
        raise InputError(f"{path} has no column {some(lacking)}; it has {some(map(str, table.columns), 12)}")
    given: pd.DataFrame = table[[name for name in ("genes", "kinds", "levels") if name in table]]
    # Rows have their numbers for names, so that a set that stands twice is called that.
    rows = [f"row {i + 2}" for i in range(len(given))]
    source: Any = InMemory(given.assign(sample_id=rows), path.name if isinstance(path, InMemory) else str(path))
    key = keys(read_perturbations(source))
    values = np.stack([required_numbers(table, name, str(path)) for name in outputs], axis=1).astype(np.float32)
    refuse_undefined(path, key, values)
    return Foreign(key, values)


def export(record: Screen, part: np.ndarray, folder: Path, name: str) -> list[Path]:
    """Write ``data.csv``: the screen as ``read_screen`` reads it, and the column ``split``."""
    from torchcell.screen.table import write_screen

    path = folder / "data.csv"
    write_screen(replace(record, columns={**record.columns, "split": part}), path)
    return [path]


FORMAT = ForeignFormat(keys, others, lambda _: None, read, export)
