"""Sums of expression over sets of cells: means, variances and changes come from them, so that cells are read once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from torchcell.cells.values import CHUNK
from torchcell.io.matrices import summed


@dataclass(frozen=True, eq=False)
class SetSums:
    """Sums over each of S sets of cells, in the order of the cells.

    Attributes:
        count: Cells of each set [S].
        total: Sum of expression [S, G].
        squares: Sum of its square [S, G].
    """

    count: Int[np.ndarray, " S"]
    total: Float[np.ndarray, "S G"]
    squares: Float[np.ndarray, "S G"]

    @classmethod
    def zeros(cls, n_sets: int, n_genes: int) -> SetSums:
        """Of no cells."""
        return cls(np.zeros(n_sets, dtype=np.int64), *np.zeros((2, n_sets, n_genes)))

    def add(self, set_of: np.ndarray, values: Any) -> None:
        """Add cells, one after the other, so that no sum depends on how many come at a time.

        Args:
            set_of: Set of each cell, -1 for none [b].
            values: Their expression [b, G], dense or sparse.
        """
        mine = set_of >= 0
        if not mine.all():
            set_of, values = set_of[mine], values[mine]
        self.count[:] += np.bincount(set_of, minlength=len(self.count))
        if not sparse.issparse(values):
            doubles = np.asarray(values, dtype=np.float64)
            np.add.at(self.total, set_of, doubles)
            np.add.at(self.squares, set_of, doubles**2)
            return
        rows = summed(values)
        place = np.repeat(set_of.astype(np.int64) * rows.shape[1], np.diff(rows.indptr)) + rows.indices
        doubles = rows.data.astype(np.float64)
        np.add.at(self.total.reshape(-1), place, doubles)
        np.add.at(self.squares.reshape(-1), place, doubles * doubles)

    def mean(self, sets: np.ndarray) -> Float[np.ndarray, "k G"]:
        """Mean over the cells of these sets, -1 being an empty one; NaN for an empty one."""
        count = np.where(sets < 0, 0, self.count[sets])[:, None].astype(np.float64)
        return np.where(count > 0, self.total[sets] / np.maximum(count, 1), np.nan)

    def moments(self, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Mean and variance over all cells of these sets together, each [G], and how many cells they are."""
        n = int(self.count[sets].sum())
        mean = self.total[sets].sum(0) / n
        return mean, np.maximum(self.squares[sets].sum(0) / n - mean**2, 0.0), n

    def on_columns(self, at: np.ndarray) -> SetSums:
        """The same over some genes."""
        return replace(self, total=self.total[:, at], squares=self.squares[:, at])


@dataclass(eq=False)
class LazySums:
    """The sums over disjoint sets of the rows of a matrix, made when first needed and never twice.

    Attributes:
        X: The matrix [n, G]; whoever has another one needs other sums.
        set_of: Set of each row, -1 for none, int32 [n].
        n_sets: S.
        source: What to take from another one, which shares what it finds: its sums, or columns of them.
    """

    X: Any
    set_of: np.ndarray
    n_sets: int
    source: tuple[LazySums, np.ndarray | None] | None = None
    _found: SetSums | None = field(default=None, repr=False)

    def get(self) -> SetSums:
        """The sums."""
        if self._found is None:
            self._found = self._of_source() if self.source else self._made()
        return self._found

    def set(self, found: SetSums) -> None:
        """Sums that are known."""
        self._found = found

    def on(self, X: Any, columns: np.ndarray | None = None) -> LazySums:
        """The same sets where they are rows of another matrix, or over some of its columns."""
        return LazySums(X, self.set_of, self.n_sets, (self, columns))

    def _of_source(self) -> SetSums:
        assert self.source is not None
        sums, columns = self.source[0].get(), self.source[1]
        return sums if columns is None else sums.on_columns(columns)

    def _made(self) -> SetSums:
        sums = SetSums.zeros(self.n_sets, int(self.X.shape[1]))
        used = np.flatnonzero(self.set_of >= 0)
        for at in _stretches(used):
            sums.add(self.set_of[at], self.X[at])
        return sums


def _stretches(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def set_of_rows(n: int, ptr: np.ndarray, member: np.ndarray, first: int = 0) -> np.ndarray:
    """Set of each of n rows, -1 for none, int32 [n]; set ``first + i`` has the rows ``member[ptr[i]:ptr[i + 1]]``."""
    found = np.full(n, -1, dtype=np.int32)
    found[member] = np.repeat(np.arange(first, first + len(ptr) - 1, dtype=np.int32), np.diff(ptr))
    return found
