"""Tables of embeddings by id: reading and writing npz, parquet and h5ad."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchcell.io.cache import DAMAGE, atomic_write, plain_arrays
from torchcell.io.ceiling import refuse_bomb
from torchcell.io.errors import InputError, near, some
from torchcell.io.h5ad import read_h5ad
from torchcell.io.matrices import LARGEST, as_float32, dense, layer_of
from torchcell.io.paths import located
from torchcell.io.tables import (
    number_cells,
    read_table,
    refuse_spoiled_names,
    single_precision,
    text_cells,
    write_table,
)

if TYPE_CHECKING:
    import anndata
    import pandas as pd


ENDINGS = (".h5ad", ".parquet", ".csv", ".tsv")
"""Of the files that are written; ``.npz`` (``ids``, ``vectors``, optional ``types``) and ``.csv.gz`` are read too."""
ID = 64
"""Bytes of an id as text of numpy, of 16 letters."""
ONE_TYPE = "all"
"""Type of every node of a file that tells none."""


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """Embeddings of N nodes.

    Attributes:
        node_id: Unique ids [N].
        node_name: Names for people [N].
        node_type: Type of each node [N].
        values: float32 [N, D].
    """

    node_id: np.ndarray
    node_name: np.ndarray
    node_type: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.node_id)

    def validate(self, source: str | Path, zeros: bool = False) -> EmbeddingTable:
        """Return self, or raise one ``InputError`` that names the nodes at fault.

        Args:
            source: Where the embeddings come from, for the message.
            zeros: Whether vectors of zeros are let through: of a model they are a finding, in a file a mistake.
        """
        if len(self) < 2:
            one = f"one node, {some(self.node_id)}" if len(self) else "no node"
            raise InputError(f"{source} holds {one}; embeddings are judged by how nodes differ: give at least 2")
        names, counts = np.unique(self.node_id, return_counts=True)
        if (counts > 1).any():
            raise InputError(f"{source}: ids that stand twice: {some(names[counts > 1])}; keep one row of each")
        odd = ~(np.abs(self.values) <= LARGEST).all(1)
        if odd.any():
            raise InputError(
                f"{source}: {int(odd.sum())} node(s) with NaN or an infinity, or beyond {LARGEST:g}: "
                f"{some(self.node_id[odd])}; embed them anew, or leave them out"
            )
        zero = ~self.values.any(1)
        if zero.any() and not zeros:
            raise InputError(
                f"{source}: {int(zero.sum())} node(s) with a vector of zeros, which has no direction: "
                f"{some(self.node_id[zero])}; leave them out"
            )
        return self

    def to_frame(self) -> pd.DataFrame:
        """``id, name, type``, then a column a dimension."""
        import pandas as pd

        about = {"id": self.node_id, "name": self.node_name, "type": self.node_type}
        columns = [f"embedding_{i}" for i in range(self.values.shape[1])]
        return pd.concat([pd.DataFrame(about), pd.DataFrame(self.values, columns=columns)], axis=1)

    def to_anndata(self, uns: Mapping[str, object] | None = None) -> anndata.AnnData:
        """A row a node: ``X``, ``obs`` with id, name and type, and what ``uns`` says of them."""
        import anndata
        import pandas as pd

        obs = pd.DataFrame({"id": self.node_id, "name": self.node_name, "type": self.node_type}, index=self.node_id)
        var = pd.DataFrame(index=pd.Index([f"embedding_{i}" for i in range(self.values.shape[1])]))
        return anndata.AnnData(X=self.values, obs=obs.astype(str), var=var, uns=dict(uns or {}))

    def write(self, path: str | Path, uns: Mapping[str, object] | None = None) -> None:
        """Write as h5ad (``X``, ``obs``: id, name, type), parquet, CSV or TSV, by the ending.

        Args:
            path: The file.
            uns: What the h5ad says of itself; other files have no room for it.
        """
        path = Path(path)
        refuse_ending(path)
        if path.suffix != ".h5ad":
            write_table(self.to_frame(), path)
            return
        table = self.to_anndata(uns)
        with atomic_write(path) as temporary:
            table.write_h5ad(temporary)


def refuse_ending(path: Path) -> None:
    """Refuse a file that embeddings can't be written to."""
    if path.suffix not in ENDINGS:
        raise InputError(f"out={path}: the name must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")


def read_embeddings(path: str | Path, ids: str = "id", node_type: str | None = None) -> EmbeddingTable:
    """Read embeddings that any program wrote; ``validate`` them afterwards.

    Args:
        path: h5ad (``X`` and ``obs``), npz (``ids``, ``vectors``, optional ``types``), or a table whose other columns
            of numbers are the dimensions.
        ids: Column of the ids; the index of an h5ad where ``obs`` has no such column.
        node_type: Column of the node types; by default ``type`` where there is one, else all nodes are of one type.

    Raises:
        InputError: No such file or column, text where numbers belong, no dimensions.
    """
    path = located(path)
    if path.suffix == ".npz":
        return read_npz(path)
    table, values = _read_h5ad(path, ids) if path.suffix == ".h5ad" else (read_table(path), None)
    if ids not in table:
        raise InputError(_no_column(path, ids, list(table.columns), "--ids"))
    if node_type is not None and node_type not in table:
        raise InputError(_no_column(path, node_type, list(table.columns), "--type"))
    column = node_type or "type"
    if column not in table and "kind" in table:
        warnings.warn(
            f"{path}: all nodes count as one type; --type kind reads the types from the column 'kind'", stacklevel=2
        )
    types = text_cells(table, column) if column in table else [ONE_TYPE] * len(table)
    node_id = np.array(text_cells(table, ids), dtype=str)
    unnamed = [f"row {i + 2}" for i in np.flatnonzero(node_id == "")]
    if unnamed:
        raise InputError(f"{path}: {len(unnamed)} row(s) without an id: {some(unnamed)}")
    if values is None:
        refuse_spoiled_names(path, ids, node_id.tolist())
    names = text_cells(table, "name") if "name" in table else node_id.tolist()
    if values is None:
        values = _numbers(path, table, {ids, column, "name", "type"})
    return EmbeddingTable(node_id, np.array(names, dtype=str), np.array(types, dtype=str), values)


def _numbers(path: Path, table: pd.DataFrame, about: set[str]) -> np.ndarray:
    """The columns that are no names, float32 [N, D]."""
    rest = [column for column in table.columns if column not in about]
    numbers = {column: number_cells(table[column], column, path, lenient=False) for column in rest}
    text = [column for column, values in numbers.items() if values is None]
    if text:
        raise InputError(f"{path}: columns that hold no numbers: {some(text)}; leave them out, or call them by --type")
    if not rest:
        raise InputError(f"{path} has no column of numbers beside {some(sorted(about & set(table.columns)))}")
    values = np.column_stack([column for column in numbers.values() if column is not None])
    return single_precision(path, values, rest)


def _read_h5ad(path: Path, ids: str) -> tuple[pd.DataFrame, np.ndarray]:
    held = read_h5ad(path)
    values = dense(layer_of(held, None, path, "write the embeddings to X")[0])
    if 0 in held.shape:
        raise InputError(f"{path}: X holds no embeddings, its shape is {held.shape}")
    table = held.obs if ids in held.obs else held.obs.assign(**{ids: held.obs_names.astype(str)})
    return table.reset_index(drop=True), values


def read_npz(path: Path, ids_name: str = "ids", vectors_name: str = "vectors") -> EmbeddingTable:
    """Read an npz of plain arrays: ids, vectors and optional ``types``; see ``read_embeddings``."""
    path = located(path)
    try:
        arrays = plain_arrays(path)
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} can't be read as npz of plain arrays: {error}") from error
    missing = [name for name in (ids_name, vectors_name) if name not in arrays]
    if missing:
        raise InputError(f"{path} has no array {some(missing)}; it holds {sorted(arrays)}")
    # As text an id may take many times what it has in the file.
    refuse_bomb(path, ID * arrays[ids_name].size, path.stat().st_size, "its ids as text")
    ids, vectors = arrays[ids_name].astype(str), arrays[vectors_name]
    if "kinds" in arrays and "types" not in arrays:
        raise InputError(f"{path}: the array 'kinds' is called 'types' since torchcell 0.2; write it so")
    types = arrays["types"].astype(str) if "types" in arrays else np.full(len(ids), ONE_TYPE)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or not len(ids) == len(vectors) == len(types):
        raise InputError(
            f"{path}: {len(ids)} ids, {len(types)} types and vectors of shape {vectors.shape} and type "
            f"{vectors.dtype} don't fit; a row of numbers an id is needed"
        )
    return EmbeddingTable(ids, ids, types, as_float32(vectors))


def _no_column(path: Path, name: str, present: list[str], flag: str) -> str:
    return f"{path} has no column {name!r}; the nearest are {near(name, present) or present[:5]}; name it with {flag}"
