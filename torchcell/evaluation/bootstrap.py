"""Resampling of clusters: weights, intervals, and quantiles for few clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

_BLOCK = 1 << 17
"""Weights that are expanded at a time: 1 MB in float64, which stays in the cache of a core."""


@dataclass(frozen=True, eq=False)
class Weights:
    """R weightings of n samples that share the weight of their cluster (U clusters).

    A sample may belong to several clusters, as a pair of genes belongs to both. It is drawn as often as the product of
    their draws says (the bootstrap of nodes and of two-way tables; Owen 2007, Davezies et al. 2021).

    Attributes:
        count: How often each cluster was drawn, unsigned integers [R, U]; row 0 is all ones, the data itself.
        cluster: The clusters of each sample, positions in ``count``'s columns, int64 [n] or [n, K]; -1 pads.
    """

    count: np.ndarray
    cluster: np.ndarray

    @classmethod
    def ones(cls, n: int) -> Weights:
        """One weighting that counts each of ``n`` samples once."""
        return cls(np.ones((1, n), dtype=np.uint8), np.arange(n))

    @property
    def n_clusters(self) -> int:
        """Number of clusters that have a sample."""
        return len(np.unique(self.cluster[self.cluster >= 0]))

    def at(self, rows: np.ndarray) -> Weights:
        """The same resamples restricted to the samples at ``rows`` (a mask or integers)."""
        return Weights(self.count, self.cluster[rows])

    def total(self, *columns: np.ndarray) -> np.ndarray:
        """Weighted sums of ``columns`` [n] each, float64 [len(columns), R].

        The columns are summed per cluster once, so that a resample costs U and not n products; samples of several
        clusters are added one by one.
        """
        if self.cluster.ndim == 1:
            return self._total_per_cluster(self.cluster, columns)
        single = (self.cluster[:, 1:] < 0).all(axis=1)
        total = self._total_per_cluster(self.cluster[single, 0], [column[single] for column in columns])
        several = np.flatnonzero(~single)
        if len(several):
            values = np.stack([column[several] for column in columns], axis=1).astype(np.float64)
            total += np.concatenate([block @ values for block in self.per_sample(several)]).T
        return total

    def _total_per_cluster(self, cluster: np.ndarray, columns: tuple[np.ndarray, ...] | list[np.ndarray]) -> np.ndarray:
        n_clusters = self.count.shape[1]
        per_cluster = np.stack([np.bincount(cluster, column, n_clusters) for column in columns], axis=1)
        used = np.unique(cluster) if len(cluster) < n_clusters else slice(None)
        blocks = [self.count[rows][:, used].astype(np.float64) @ per_cluster[used] for rows in self._blocks(n_clusters)]
        return np.concatenate(blocks).T

    def per_sample(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """Weights of the samples at ``order``, float64 [<= R, len(order)], a block of resamples at a time."""
        cluster = self.cluster[order].reshape(len(order), -1)
        for rows in self._blocks(len(cluster)):
            # A pad of -1 points at one more column, of ones.
            count = np.pad(self.count[rows], ((0, 0), (0, 1)), constant_values=1)
            weight = np.take(count, cluster[:, 0], axis=1).astype(np.float64)
            for further in cluster.T[1:]:
                weight *= np.take(count, further, axis=1)
            yield weight

    def _blocks(self, width: int) -> Iterator[slice]:
        step = max(1, _BLOCK // max(width, 1))
        return (slice(start, start + step) for start in range(0, len(self.count), step))


MAX_UNDEFINED = 0.05
"""An interval is undefined when more than this share of its resamples is undefined."""
Z = 1.959964
"""Half width of a 95 % interval of a standard normal variable."""
FEWEST_CLUSTERS = 10
"""With fewer clusters the resamples show too little of how clusters vary: no system is called better."""
ENOUGH_CLUSTERS = 30
"""With more clusters the quantile of Student's t is close to that of a normal variable."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; NaN is undefined.

    Attributes:
        value: On the data itself.
        low, high: The 2.5 % and 97.5 % points over the defined resamples.
        undefined: Number of resamples on which the value was undefined.
        se: Standard error, the standard deviation over the defined resamples.
    """

    value: float
    low: float
    high: float
    undefined: int
    se: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside; an undefined interval excludes nothing."""
        return self.low > 0 or self.high < 0

    def for_clusters(self, n: int) -> Interval:
        """The interval for a paired difference over ``n`` clusters.

        Resamples of n clusters spread too little by a factor sqrt((n - 1) / n); ``se`` is corrected for it. Below 10
        clusters the interval is the value plus and minus ``t(n - 1)`` standard errors; up to 30 the interval of the
        resamples is widened by ``t(n - 1) / 1.96``.
        """
        se = self.se * (n / max(n - 1, 1)) ** 0.5
        if n > ENOUGH_CLUSTERS or np.isnan(self.value):
            return replace(self, se=se)
        quantile = student_quantile(n)
        if n < FEWEST_CLUSTERS:
            return replace(self, low=self.value - quantile * se, high=self.value + quantile * se, se=se)
        wide = quantile / Z
        return replace(
            self,
            low=self.value - wide * (self.value - self.low),
            high=self.value + wide * (self.high - self.value),
            se=se,
        )


def student_quantile(n: int) -> float:
    """The 97.5 % point of Student's t for ``n`` clusters; that of a normal variable above 30."""
    return Z if n > ENOUGH_CLUSTERS else float(student.ppf(0.975, max(n - 1, 1)))


def resample(group: np.ndarray, n_boot: int = 1000, seed: int = 0) -> Weights:
    """Draw ``n_boot`` bootstrap samples of the clusters in ``group``.

    Args:
        group: Cluster of each sample, e.g. its query gene [n], or its clusters [n, K] with empty texts as pads.
        n_boot: Number of resamples R.
        seed: The same seed and clusters give the same draws, whatever the order of the samples.

    Returns:
        Weights of R + 1 rows; row 0 is the data itself, so that value and interval come from one call. Counts fit a
        byte: a cluster is drawn once on average, and practically never more than 255 times.
    """
    group = np.asarray(group).astype(str)
    names, cluster = np.unique(group, return_inverse=True)
    cluster = cluster.reshape(group.shape)
    if group.ndim == 2 and names[0] == "":
        names, cluster = names[1:], cluster - 1
    rng = np.random.default_rng(seed)
    n_clusters = len(names)
    count = np.ones((n_boot + 1, n_clusters), dtype=np.uint8)
    for row in count[1:]:
        row[:] = np.bincount(rng.integers(0, n_clusters, n_clusters), minlength=n_clusters)
    return Weights(count, cluster)


def interval(values: np.ndarray) -> Interval:
    """Summarize ``values`` [R + 1]: the data's own value first, then one per resample."""
    drawn = values[1:]
    undefined = int(np.isnan(drawn).sum())
    if np.isnan(values[0]) or not len(drawn) or undefined > MAX_UNDEFINED * len(drawn):
        return Interval(float(values[0]), float("nan"), float("nan"), undefined, float("nan"))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high), undefined, float(np.nanstd(drawn)))


def paired(values_a: np.ndarray, values_b: np.ndarray) -> Interval:
    """The interval of ``a - b`` [R + 1] each, computed on the same samples and the same resamples."""
    return interval(values_a - values_b)
