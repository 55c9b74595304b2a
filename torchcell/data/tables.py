"""A user's table as a CSV, TSV or parquet file: read, write, and take its cells as text or as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchcell.data.cache import atomic_write
from torchcell.data.errors import InputError, some
from torchcell.data.places import located

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "na", "nan", "n/a", "null", "none")
"""What a missing number looks like in a CSV file, in any case."""

ENDINGS = (".csv", ".tsv", ".parquet")
"""Of the files that can be read and written; ``.csv.gz`` and ``.tsv.gz`` can be read too."""


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a ``.csv`` or ``.tsv`` file, every cell as text, or a ``.parquet`` file with the types it has.

    Raises:
        InputError: No such file, an unknown ending, no rows, or a file that can't be read.
    """
    import pandas as pd

    path = located(path)
    kind = next((k for k in ENDINGS if path.name.removesuffix(".gz").endswith(k)), None)
    if kind is None:
        raise InputError(f"{path}: a table must be a {', '.join(ENDINGS)} file")
    try:
        if kind == ".parquet":
            table = pd.read_parquet(path)
        else:  # text throughout: a gene may be called NA, and 'utf-8-sig' takes the mark that Excel writes
            table = pd.read_csv(
                path,
                sep="\t" if kind == ".tsv" else ",",
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
            )
    except (ValueError, OSError) as error:  # pandas and pyarrow raise either for a damaged file
        raise InputError(f"{path} can't be read as {kind.removeprefix('.')}: {error}") from error
    if table.empty:
        raise InputError(f"{path} has no rows")
    table = table.reset_index(drop=table.index.name is None)
    table.columns = [str(column).strip() for column in table.columns]
    return table


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table to a ``.csv``, ``.tsv`` or ``.parquet`` file, atomically.

    Raises:
        InputError: Another ending.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: a table must be a {', '.join(ENDINGS)} file")
    with atomic_write(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False, sep="\t" if path.suffix == ".tsv" else ",")


def text_cells(table: pd.DataFrame, column: str) -> list[str]:
    """A column as text, empty where a cell or the column is missing."""
    if column not in table:
        return [""] * len(table)
    return [
        str(cell).strip() if there else "" for cell, there in zip(table[column], table[column].notna(), strict=True)
    ]


def number_cells(column: pd.Series, name: str, path: str | Path, lenient: bool) -> np.ndarray | None:
    """A column as float64, or None where it is text or truth values.

    Raises:
        InputError: A few stray words among numbers, unless ``lenient``; names their rows.
    """
    import pandas as pd

    if column.dtype.kind in "iuf":
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if column.dtype.kind == "b":
        return None
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    missing = text.str.lower().isin(MISSING)
    numbers = pd.to_numeric(text.where(~missing, "nan"), errors="coerce")
    stray = numbers.isna() & ~missing
    if not stray.any():
        return numbers.to_numpy(dtype=np.float64)
    if not lenient and stray.sum() < (~missing).sum() / 2:
        words = [f"row {i + 2}: {text[i]}" for i in text.index[stray]]
        raise InputError(f"{path}: column {name!r} holds numbers but for {some(words)}; leave such a cell empty")
    return None
