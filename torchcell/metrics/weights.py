"""``Weights``: every bootstrap resample as integer weights of units, so that a metric is computed once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK = 1 << 17
"""Weights expanded at a time: 1 MB in float64, which stays in a core's cache."""


@dataclass(frozen=True, eq=False)
class Weights:
    """R weightings of n samples that share the weight of their unit (U units).

    Attributes:
        count: How often each unit was drawn, unsigned integers [R, U]; row 0 is all ones, the data itself.
        unit: The unit of each sample, positions in ``count``'s columns, int64 [n].
    """

    count: np.ndarray
    unit: np.ndarray

    @classmethod
    def ones(cls, n: int) -> Weights:
        """One weighting that counts each of ``n`` samples once."""
        return cls(np.ones((1, n), dtype=np.uint8), np.arange(n))

    @property
    def n_units(self) -> int:
        """Units that have a sample."""
        return len(np.unique(self.unit))

    def at(self, rows: np.ndarray) -> Weights:
        """The same resamples restricted to the samples at ``rows`` (a mask or integers)."""
        return Weights(self.count, self.unit[rows])

    def total(self, *columns: np.ndarray) -> np.ndarray:
        """Weighted sums of ``columns`` [n] each, float64 [len(columns), R].

        The columns are summed per unit once, so that a resample costs U and not n products.
        """
        n_units = self.count.shape[1]
        per_unit = np.stack([np.bincount(self.unit, column, n_units) for column in columns], axis=1)
        held = np.unique(self.unit) if len(self.unit) < n_units else slice(None)
        blocks = [self.count[rows][:, held].astype(np.float64) @ per_unit[held] for rows in self._blocks(n_units)]
        return np.concatenate(blocks).T

    def per_sample(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """Weights of the samples in the given ``order``, float64 [<= R, len(order)], a block at a time."""
        unit = self.unit[order]
        for rows in self._blocks(len(unit)):
            yield np.take(self.count[rows], unit, axis=1).astype(np.float64)

    def _blocks(self, width: int) -> Iterator[slice]:
        step = max(1, _BLOCK // max(width, 1))
        return (slice(start, start + step) for start in range(0, len(self.count), step))
