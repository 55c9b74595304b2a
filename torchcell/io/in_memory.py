"""A table or cells that a user holds in Python, where a reader expects a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchcell.io.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class InMemory(os.PathLike):
    """Content that is given to a reader in place of a file's path, and read by the same checks.

    Errors number the rows of a table as those of a file: the header is row 1.

    Attributes:
        content: A pandas DataFrame or an AnnData.
        name: What records are called that are made of it.

    Example:
        >>> import pandas as pd
        >>> from torchcell.io.in_memory import InMemory
        >>> from torchcell.io.tables import read_table
        >>> read_table(InMemory(pd.DataFrame({"genes": ["A|B ", "C"]})))["genes"].tolist()
        ['A|B', 'C']
    """

    content: Any
    name: str = "table"

    @property
    def is_table(self) -> bool:
        """Whether it is a DataFrame; else it is AnnData."""
        return hasattr(self.content, "columns")

    def __str__(self) -> str:
        return f"the {self.name} given (row 2 is its first)" if self.is_table else f"the {self.name} given"

    def __fspath__(self) -> str:
        return self.name if self.is_table else f"{self.name}.h5ad"

    def to_arrow(self) -> pa.Table:
        """The columns of the table, and its index where that has a name.

        Raises:
            InputError: It is no table, or a column holds values of several types.
        """
        import pyarrow as pa

        if not self.is_table:
            raise InputError(f"{self}: a table is needed here, a DataFrame, not {type(self.content).__name__}")
        frame = self.content
        named = [name for name in frame.index.names if name is not None and name not in frame.columns]
        if named:
            frame = frame.reset_index(named)
        frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
        try:
            return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        except (pa.ArrowException, TypeError) as error:
            raise InputError(f"{self} holds a column of several types: {' '.join(str(error).split())}") from error

    @cached_property
    def root(self) -> Any:
        """AnnData as the root group of an HDF5 file that exists in memory only.

        Raises:
            InputError: It is no AnnData, or holds what an h5ad file can't.
        """
        import h5py
        from anndata.io import write_elem

        if self.is_table or not hasattr(self.content, "obs"):
            raise InputError(f"{self}: cells are needed here, an AnnData, not {type(self.content).__name__}")
        file = h5py.File(f"{self.name}-{id(self)}.h5ad", "w", driver="core", backing_store=False)
        try:
            write_elem(file, "/", self.content)
        except Exception as error:  # anndata wraps what h5py raises in errors of its own
            raise InputError(f"{self} can't be held as h5ad: {' '.join(str(error).split())}") from error
        return file


def is_cells(content: object) -> bool:
    """Whether an object is AnnData, without importing it."""
    return all(hasattr(content, name) for name in ("obs", "var", "X"))


def in_memory(given: Any, columns: Sequence[str], name: str) -> str | Path | InMemory:
    """What a reader takes of what a user gives: a path as it is, a DataFrame, AnnData or list as ``InMemory``.

    Args:
        given: A path, a DataFrame, an AnnData, or a list.
        columns: Columns that a list fills: texts (or lists of them) for one column, tuples of as many for several.
        name: What errors call it.

    Raises:
        InputError: It is none of these, or a list of something else.
    """
    import pandas as pd

    if isinstance(given, str | os.PathLike):
        return given if isinstance(given, str | InMemory) else Path(given)
    if isinstance(given, pd.DataFrame) or is_cells(given):
        return InMemory(given, name)
    if isinstance(given, pd.Series | pd.Index) or hasattr(given, "tolist"):
        given = given.tolist()
    if not isinstance(given, list | tuple) or not given:
        raise InputError(
            f"the {name} must be a DataFrame, an AnnData, a list with entries or a file, not {type(given).__name__}"
        )
    if not columns:
        raise InputError(f"the {name} of this model need several columns, which a list can't name; give a DataFrame")
    rows = [(row,) for row in given] if len(columns) == 1 else given
    if not all(isinstance(row, list | tuple) and len(row) == len(columns) for row in rows):
        raise InputError(f"the {name} as a list holds {' and '.join(columns)} of each row; or give a DataFrame")
    return InMemory(pd.DataFrame([list(row) for row in rows], columns=list(columns)), name)
