"""GCTX, the HDF5 form of GCT: any wells of a file too large for memory, read in chunks of samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from torchcell.data.errors import InputError
from torchcell.data.gct import AnnotatedMatrix, cleared, refuse_repeated_ids
from torchcell.data.places import located

if TYPE_CHECKING:
    import h5py
    import pandas as pd

MATRIX, ABOUT_WELLS, ABOUT_GENES = "0/DATA/0/matrix", "0/META/COL", "0/META/ROW"
CHUNK = 4096
"""Samples a chunk, where nobody says otherwise; 16 MB over the 978 landmark genes."""
NULL = -666.0


class Gctx:
    """An open GCTX file; use it in a ``with`` statement.

    Args:
        path: A ``.gctx`` file; its matrix is stored samples by genes.

    Raises:
        InputError: No such file, no HDF5, or without the groups of a GCTX file; ids used twice; a matrix of another
            size than the ids.
    """

    def __init__(self, path: str | Path) -> None:
        import h5py

        self.path = located(path)
        try:
            self.file = h5py.File(self.path, "r")
        except OSError as error:
            raise InputError(f"{self.path} can't be read as HDF5: {error}; fetch it again") from error
        try:
            self.matrix = self._checked()
        except InputError:
            self.file.close()
            raise

    def __enter__(self) -> Gctx:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def wells(self) -> pd.DataFrame:
        """What is told of each sample, indexed by its id; a missing text is empty, a missing number NaN."""
        return self._annotations(ABOUT_WELLS)

    def genes(self) -> pd.DataFrame:
        """What is told of each gene, indexed by its id."""
        return self._annotations(ABOUT_GENES)

    def read(self, samples: np.ndarray | slice | None = None, chunk: int = CHUNK) -> np.ndarray:
        """Expression of some samples over all genes, float32 [b, G]; NaN where the file marks a missing value.

        At most ``chunk`` samples are read at a time, in ascending order straight into the answer.

        Args:
            samples: Positions in any order, or a slice; all by default.
            chunk: Most samples that are asked of the file at once.
        """
        at = np.arange(len(self))[samples if samples is not None else slice(None)]
        values = np.empty((len(at), self.matrix.shape[1]), dtype=np.float32)
        order = np.argsort(at, kind="stable")
        in_order = bool((np.diff(at) > 0).all())
        for begin in range(0, len(at), chunk):
            where = slice(begin, min(begin + chunk, len(at)))
            rows = at[order[where]]  # ascending, as h5py wants them
            if in_order:
                span = slice(rows[0], rows[-1] + 1)
                wanted = span if span.stop - span.start == len(rows) else rows
                self.matrix.read_direct(values, np.s_[wanted], np.s_[where])
                _mark_missing(values[where])
            else:
                once, back = np.unique(rows, return_inverse=True)
                block = self.matrix[once].astype(np.float32, copy=False)
                _mark_missing(block)
                values[order[where]] = block[back]
        return values

    def chunks(self, chunk: int = CHUNK) -> Iterator[tuple[slice, np.ndarray]]:
        """All samples, a chunk at a time: where it stands, and its expression [b, G]."""
        for begin in range(0, len(self), chunk):
            where = slice(begin, min(begin + chunk, len(self)))
            yield where, self.read(where, chunk)

    def annotated(self, samples: np.ndarray | slice | None = None) -> AnnotatedMatrix:
        """Some samples, or all, with their annotations, as ``read_gct`` gives them."""
        where = samples if samples is not None else slice(None)
        return AnnotatedMatrix(self.read(where), self.wells().iloc[where], self.genes())

    def _checked(self) -> h5py.Dataset:
        """The stored matrix [n, G], opened once: that takes as long as reading a thousand wells."""
        for name in (MATRIX, f"{ABOUT_WELLS}/id", f"{ABOUT_GENES}/id"):
            if name not in self.file:
                raise InputError(f"{self.path} is no GCTX file: it has no {name}")
        n_wells, n_genes = (len(self.file[f"{group}/id"]) for group in (ABOUT_WELLS, ABOUT_GENES))
        matrix = self.file[MATRIX]
        if matrix.shape != (n_wells, n_genes):
            raise InputError(
                f"{self.path}: the matrix is {matrix.shape}, but there are ids of {n_wells} samples and "
                f"{n_genes} genes; fetch the file again"
            )
        return matrix

    def _annotations(self, group: str) -> pd.DataFrame:
        import pandas as pd

        columns = {name: _cells(data[:]) for name, data in self.file[group].items() if name != "id"}
        ids = _cells(self.file[f"{group}/id"][:], nulls=False).tolist()
        refuse_repeated_ids(self.path, "samples" if group == ABOUT_WELLS else "genes", ids)
        return pd.DataFrame(columns, index=pd.Index(ids, dtype=object))


def _cells(values: np.ndarray, nulls: bool = True) -> np.ndarray:
    """One column: texts (stored as bytes, µ in either encoding) or numbers, missing ones marked as ours."""
    if values.dtype.kind in "iuf":
        if not nulls:
            return values.astype(str)
        return np.where(values == NULL, np.nan, values) if (values == NULL).any() else values
    texts = [_decoded(value) for value in values.tolist()]
    return np.array(cleared(texts) if nulls else texts, dtype=object)


def _decoded(value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _mark_missing(block: np.ndarray) -> None:
    """NaN for the file's -666, in place; the least value tells in one pass whether there is any."""
    if block.size and not block.min() > NULL:
        np.copyto(block, np.nan, where=block == NULL)
