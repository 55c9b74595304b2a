"""Single cells that stay on disk, read in blocks when a step needs them; counts to log-normalized expression."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from torchcell.io.chunked import Chunked, hdf5_chunks, zarr_chunks
from torchcell.io.errors import InputError, as_positions
from torchcell.io.file_facts import remembered
from torchcell.io.fingerprint import chunks_fingerprint, fingerprint, matrix_fingerprint
from torchcell.io.hdf5 import open_hdf5, open_zarr
from torchcell.io.in_memory import InMemory
from torchcell.io.matrices import RAW, as_float32, no_layer, summed
from torchcell.io.paths import located

LIBRARY = 10_000.0
"""Counts a cell that are usual to scale to."""


def lognormalized(X: Any, library: float | int = LIBRARY) -> Any:
    """ln(1 + counts / total of the cell x library), float32, of the kind that ``X`` is.

    A cell's total is over all columns of ``X``, so normalize before genes are chosen. A cell without counts stays zero.

    Args:
        X: Counts [n, G], an array or a SciPy matrix, of which CSR is made.
        library: Counts a cell is scaled to; a given number, not a median, so that no cell depends on another.
    """
    if library <= 0:
        raise InputError(f"library={library}: the counts a cell is scaled to must be positive")
    total = np.asarray(X.sum(1), dtype=np.float64).ravel()
    factor = library / np.where(total > 0, total, 1.0)
    if not sparse.issparse(X):
        return np.log1p(np.asarray(X) * factor[:, None]).astype(np.float32)
    rows = sparse.csr_matrix(summed(X))
    values = _log1p(rows.data.astype(np.float32, copy=False), factor, np.diff(rows.indptr))
    return sparse.csr_matrix((values, rows.indices.copy(), rows.indptr.copy()), shape=rows.shape)


FEW = 8
"""Counts below this, which most are, are looked up: the logarithm is what reading cells costs most."""


def _log1p(values: np.ndarray, factor: np.ndarray, count: np.ndarray) -> np.ndarray:
    """ln(1 + value x factor), float32 [E]; row i has the factor ``factor[i]`` and ``count[i]`` values."""
    table = np.log1p(factor[:, None] * np.arange(FEW)).astype(np.float32)
    with np.errstate(invalid="ignore"):  # what is no count is none of those looked up
        whole = np.clip(values, 0, FEW - 1).astype(np.int32)
    row = np.repeat(np.arange(0, len(count) * FEW, FEW, dtype=np.int32), count)
    found = table.ravel().take(row + whole)
    rest = np.flatnonzero(whole != values)
    found[rest] = np.log1p(values[rest] * factor[row[rest] // FEW])
    return found


CHUNK = 4096
"""Rows that are read at a time for a fingerprint."""


@dataclass(frozen=True, eq=False)
class BackedMatrix:
    """Rows and columns of a matrix on disk [n, G]; ``matrix[rows]`` reads these rows.

    Attributes:
        path: The h5ad file or zarr folder.
        key: Where the matrix stands in it: ``X``, ``layers/NAME`` or ``raw/X``.
        rows: Row in the file of each of our rows, int64 [n].
        columns: Column in the file of each of our columns, int64 [G]; none: all of them.
        width: Columns in the file.
        library: Log-normalize what is read to this many counts a cell, over all columns of the file; none: as it is.
        known: What ``fingerprints`` would find, where a pass over the file has found it.
        state: Inode, size and time of the file when it was opened; read later, another file is an error.
    """

    path: Path
    key: str
    rows: np.ndarray
    width: int
    columns: np.ndarray | None = None
    library: float | int | None = None
    known: tuple[str, str] | None = None
    state: tuple[int, ...] | None = None

    @classmethod
    def open(cls, path: str | Path, key: str = "X") -> BackedMatrix:
        """All of the matrix ``key`` of a file.

        Raises:
            InputError: It is no h5ad or zarr, it lacks the matrix or a part of it, or the matrix is stored by columns.
        """
        path = located(path)
        matrix = matrix_at(path, key)
        if _by_columns(matrix):
            raise InputError(
                f"{path}: {key} is stored by columns (csc), from which cells can't be read one by one; read it whole "
                "(backed=false), or write it by rows: adata.X = adata.X.tocsr()"
            )
        _refuse_gaps(path, key)
        n, width = matrix.shape
        return cls(Path(path), key, np.arange(n), width, state=_signature(path)[:3])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows), self.width if self.columns is None else len(self.columns)

    @property
    def dtype(self) -> np.dtype:
        """What rows are read as."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are read."""
        return (self.path,)

    @property
    def seen(self) -> list[Any]:
        """Which values of the files are shown, for what is kept about them."""
        return [self.key, self.rows, self.columns, self.library]

    @property
    def n_values(self) -> int | None:
        """Stored values of our rows over all columns of the file; none of a dense matrix."""
        on_disk = _stored_rows(self.path, self.key)
        return None if on_disk is None else int(np.diff(on_disk.indptr)[self.rows].sum())

    def __getitem__(self, index: Any) -> Any:
        """The rows at ``index`` (integers, a mask or a slice), in that order, float32: CSR, or dense where it is."""
        at = np.arange(len(self))[index] if isinstance(index, slice) else as_positions(index)
        return self._shown(self.stored(at))

    def stored(self, at: np.ndarray) -> Any:
        """Our rows ``at`` over all columns of the file, as they stand there."""
        if self.state is not None and _signature(self.path)[:3] != self.state:
            raise InputError(f"{self.path} changed while it was read: wait until it is whole, then start again")
        wanted, place = np.unique(self.rows[at], return_inverse=True)  # the file is read in its own order, a row once
        with _damage(self.path, self.key):
            on_disk = _stored_rows(self.path, self.key)
            values = as_float32(on_disk.rows(wanted) if on_disk else matrix_at(self.path, self.key)[_as_slice(wanted)])
        return values if np.array_equal(place, np.arange(len(wanted))) else values[place]

    def _shown(self, stored: Any) -> Any:
        """What we show of stored rows: normalized, over our columns."""
        values = stored if self.library is None else lognormalized(stored, self.library)
        return values if self.columns is None else values[:, self.columns]

    def fingerprints(self) -> tuple[str, str]:
        """Fingerprint of what we show, as of the same matrix in memory, and of each row's total over all columns.

        The file is read in chunks, once: what was found is remembered until it changes, see ``file_facts``.
        """
        if self.known is not None:
            return self.known
        seen = f"summed matrix {fingerprint(self.seen)}"
        values, totals = remembered(self.files, seen, self._read_fingerprints).split()
        return values, totals

    def _read_fingerprints(self) -> str:
        totals: list[np.ndarray] = []

        def chunks() -> Iterator[Any]:
            for start in range(0, len(self), CHUNK):
                stored = self.stored(np.arange(start, min(start + CHUNK, len(self))))
                totals.append(np.asarray(stored.sum(1, dtype=np.float64)).ravel())
                yield self._shown(stored)

        values = chunks_fingerprint(chunks(), self.shape)
        return f"{values} {fingerprint(np.concatenate([np.empty(0), *totals]))}"

    def on_rows(self, index: np.ndarray) -> BackedMatrix:
        """The same file seen through these of our rows; nothing is read."""
        return replace(self, rows=self.rows[as_positions(index)], known=None)

    def on_columns(self, columns: np.ndarray) -> BackedMatrix:
        """The same file seen through these of our columns; nothing is read."""
        at = np.asarray(columns, dtype=np.int64)
        return replace(self, columns=at if self.columns is None else self.columns[at], known=None)


@dataclass(frozen=True, eq=False)
class StoredRows:
    """A sparse matrix on disk, stored by rows.

    Attributes:
        indptr: Row i has the values ``indptr[i]`` to ``indptr[i + 1]``, int64 [n + 1].
        indices: Column of each value.
        data: The values.
        width: Columns.
    """

    indptr: np.ndarray
    indices: Chunked
    data: Chunked
    width: int

    def rows(self, at: np.ndarray) -> sparse.csr_matrix:
        """The rows at these positions, which rise, each once."""
        start, stop = self.indptr[at], self.indptr[at + 1]
        ptr = np.concatenate([[0], np.cumsum(stop - start)])
        apart = np.flatnonzero(start[1:] != stop[:-1])  # rows that follow one another are one piece
        pieces = start[np.r_[0, apart + 1]], stop[np.r_[apart, len(at) - 1]]
        pieces = pieces if len(at) else (start, stop)
        indices = self.indices.take(*pieces).astype(np.int32, copy=False)
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < self.width:
            raise ValueError(f"a value stands in column {int(indices.max()):,} of {self.width:,}")
        return sparse.csr_matrix((self.data.take(*pieces), indices, ptr), shape=(len(at), self.width), copy=False)


def _stored_rows(path: Path, key: str) -> StoredRows | None:
    """The sparse matrix of a file; none where it is dense."""
    return _rows_of(path, key, os.getpid(), _signature(path))


@lru_cache(maxsize=32)
def _rows_of(path: Path, key: str, process: int, state: tuple[int, ...]) -> StoredRows | None:
    found = opened(path)[key]
    if not hasattr(found, "keys"):
        return None
    parts = {}
    for name in ("indices", "data"):
        on_disk = path.is_file()
        parts[name] = hdf5_chunks(found[name]) if on_disk else zarr_chunks(found[name], path / key / name)
    indptr, width = np.asarray(found["indptr"][:], dtype=np.int64), int(matrix_at(path, key).shape[1])
    if (np.diff(indptr) < 0).any() or indptr[0] != 0 or indptr[-1] > min(part.size for part in parts.values()):
        raise ValueError("indptr does not fit its values")
    return StoredRows(indptr, **parts, width=width)


def matrix_fingerprints(X: Any) -> tuple[str, str | None]:
    """Fingerprint of a matrix and, of one on disk, of the totals of its rows over all columns of the file."""
    return X.fingerprints() if isinstance(X, BackedMatrix) else (matrix_fingerprint(X), None)


def expression(path: str | Path, key: str = "X", backed: bool = False) -> Any:
    """The matrix ``key`` of a file [n, G], left on disk; one stored by columns is read, as CSR, unless ``backed``.

    Raises:
        InputError: As of ``BackedMatrix.open``, or a damaged matrix.
    """
    matrix = matrix_at(path, key)
    if isinstance(path, InMemory):
        return as_float32(matrix.to_memory() if hasattr(matrix, "to_memory") else matrix[:])
    if backed or not _by_columns(matrix):
        return BackedMatrix.open(path, key)
    _refuse_gaps(path, key)
    with _damage(path, key):
        return as_float32(matrix.to_memory())


def opened(path: str | Path | InMemory) -> Any:
    """The root group of an h5ad file or a zarr folder, open for reading, or of AnnData in memory.

    Raises:
        InputError: No such file, or it is neither (truncated, say).
    """
    if isinstance(path, InMemory):
        return path.root
    path = located(path)
    return _opened(path, os.getpid(), _signature(path))


def _signature(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=8)
def _opened(path: Path, process: int, state: tuple[int, ...]) -> Any:
    """One handle a file, its state and process: a handle must not be shared over a fork."""
    try:
        return open_zarr(path) if path.is_dir() else open_hdf5(path)
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} can't be read as h5ad or zarr ({error}); is it whole? copy it again") from error


def layers_of(path: str | Path) -> list[str]:
    """Names of the layers of a file, sorted."""
    root = opened(path)
    return sorted(root["layers"]) if "layers" in root else []


def keys_of(path: str | Path, layer: str | None) -> tuple[str, str]:
    """Where a layer's matrix and the table of its genes stand in a file; none: ``X``; ``raw``: see ``matrices.RAW``."""
    if layer is None:
        return "X", "var"
    root = opened(path)
    if layer == RAW and f"layers/{layer}" not in root and "raw/X" in root:
        return "raw/X", "raw/var"
    return f"layers/{layer}", "var"


def matrix_at(path: str | Path, key: str) -> Any:
    """The matrix ``key`` of a file on disk: its ``shape``, and its rows by index."""
    root = opened(path)
    if key not in root:
        layer = None if key == "X" else key.removeprefix("layers/")
        raise InputError(no_layer(path, layer, layers_of(path), "raw/X" in root))
    found = root[key]
    if not hasattr(found, "keys"):
        return found
    from anndata.io import sparse_dataset

    return sparse_dataset(found)


def _by_columns(matrix: Any) -> bool:
    return getattr(matrix, "format", "csr") == "csc"


def _refuse_gaps(path: str | Path, key: str) -> None:
    """Raise if a zarr folder lacks a chunk of the matrix: it would read as zeros."""
    found = opened(path)[key]
    for name, array in found.arrays() if hasattr(found, "arrays") else [("", found)]:
        if not hasattr(array, "nchunks_initialized"):  # HDF5, which notices
            continue
        piece = getattr(array, "shards", None) or array.chunks  # what is one file; a shard holds several chunks
        n = math.prod(-(-size // step) for size, step in zip(array.shape, piece, strict=True))
        lacking = n - array.nchunks_initialized * math.prod(array.chunks) // math.prod(piece)
        if lacking > 0:
            raise InputError(
                f"{path} lacks {lacking:,} of the {n:,} chunk(s) of {key}{name and '/'}{name}, which would "
                "read as zeros; copy it again, or, if zeros is what they hold, write the matrix sparse (CSR)"
            )


@contextmanager
def _damage(path: Path | str, key: str) -> Iterator[None]:
    """What HDF5 and zarr raise over a damaged matrix, as one error that says so."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: its {key} can't be read ({error}); copy it again") from error


def _as_slice(rows: np.ndarray) -> Any:
    """A slice where sorted ``rows`` follow one another, which files read many times faster."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
