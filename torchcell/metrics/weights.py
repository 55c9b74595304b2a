"""``Weights``: every bootstrap resample as integer weights of clusters, so that a metric is computed once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK = 1 << 17
"""Weights expanded at a time: 1 MB in float64, which stays in a core's cache."""


@dataclass(frozen=True, eq=False)
class Weights:
    """R weightings of n samples that share the weight of their cluster (U clusters).

    A sample may belong to several clusters, as a pair of genes belongs to both. It is drawn as often as the product of
    their draws says (the bootstrap of nodes and of two-way tables; Owen 2007, Davezies et al. 2021).

    Attributes:
        count: How often each cluster was drawn, unsigned integers [R, U]; row 0 is all ones, the data itself.
        unit: The clusters of each sample, positions in ``count``'s columns, int64 [n] or [n, K]; -1 pads.
    """

    count: np.ndarray
    unit: np.ndarray

    @classmethod
    def ones(cls, n: int) -> Weights:
        """One weighting that counts each of ``n`` samples once."""
        return cls(np.ones((1, n), dtype=np.uint8), np.arange(n))

    @property
    def n_units(self) -> int:
        """Clusters that have a sample."""
        return len(np.unique(self.unit[self.unit >= 0]))

    def at(self, rows: np.ndarray) -> Weights:
        """The same resamples restricted to the samples at ``rows`` (a mask or integers)."""
        return Weights(self.count, self.unit[rows])

    def total(self, *columns: np.ndarray) -> np.ndarray:
        """Weighted sums of ``columns`` [n] each, float64 [len(columns), R].

        The columns are summed per cluster once, so that a resample costs U and not n products; samples of several
        clusters are added one by one.
        """
        if self.unit.ndim == 1:
            return self._total_per_cluster(self.unit, columns)
        alone = (self.unit[:, 1:] < 0).all(axis=1)
        total = self._total_per_cluster(self.unit[alone, 0], [column[alone] for column in columns])
        shared = np.flatnonzero(~alone)
        if len(shared):
            values = np.stack([column[shared] for column in columns], axis=1).astype(np.float64)
            total += np.concatenate([block @ values for block in self.per_sample(shared)]).T
        return total

    def _total_per_cluster(self, unit: np.ndarray, columns: tuple[np.ndarray, ...] | list[np.ndarray]) -> np.ndarray:
        n_units = self.count.shape[1]
        per_unit = np.stack([np.bincount(unit, column, n_units) for column in columns], axis=1)
        held = np.unique(unit) if len(unit) < n_units else slice(None)
        blocks = [self.count[rows][:, held].astype(np.float64) @ per_unit[held] for rows in self._blocks(n_units)]
        return np.concatenate(blocks).T

    def per_sample(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """Weights of the samples in the given ``order``, float64 [<= R, len(order)], a block at a time."""
        unit = self.unit[order].reshape(len(order), -1)
        for rows in self._blocks(len(unit)):
            # One more column, of ones, is what a pad of -1 points at.
            count = np.pad(self.count[rows], ((0, 0), (0, 1)), constant_values=1)
            weight = np.take(count, unit[:, 0], axis=1).astype(np.float64)
            for further in unit.T[1:]:
                weight *= np.take(count, further, axis=1)
            yield weight

    def _blocks(self, width: int) -> Iterator[slice]:
        step = max(1, _BLOCK // max(width, 1))
        return (slice(start, start + step) for start in range(0, len(self.count), step))
