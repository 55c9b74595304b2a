"""Cluster bootstrap: units are drawn with replacement, and all rows of a unit come together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchcell.metrics.weights import Weights

MAX_UNDEFINED = 0.05
"""An interval is undefined when more than this share of its resamples is."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % percentile interval; NaN is undefined.

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


def resample(group: np.ndarray, n_boot: int = 1000, seed: int = 0) -> Weights:
    """Draw ``n_boot`` bootstrap samples of the units in ``group``.

    Args:
        group: Unit of each sample, e.g. its query gene [n].
        n_boot: Number of resamples R.
        seed: Same seed and same units, same draws, in whatever order the samples stand.

    Returns:
        Weights of R + 1 rows; row 0 is the data itself, so that value and interval come from one call.
        Counts fit a byte: a unit is drawn once on average, and never more than 255 times.
    """
    names, unit = np.unique(np.asarray(group).astype(str), return_inverse=True)
    rng = np.random.default_rng(seed)
    n_units = len(names)
    count = np.ones((n_boot + 1, n_units), dtype=np.uint8)
    for row in count[1:]:
        row[:] = np.bincount(rng.integers(0, n_units, n_units), minlength=n_units)
    return Weights(count, unit.reshape(-1))


def interval(values: np.ndarray) -> Interval:
    """Summarise ``values`` [R + 1]: the data's own value first, then one per resample."""
    drawn = values[1:]
    undefined = int(np.isnan(drawn).sum())
    if np.isnan(values[0]) or not len(drawn) or undefined > MAX_UNDEFINED * len(drawn):
        return Interval(float(values[0]), float("nan"), float("nan"), undefined, float("nan"))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high), undefined, float(np.nanstd(drawn)))


def paired(values_a: np.ndarray, values_b: np.ndarray) -> Interval:
    """The interval of ``a - b`` [R + 1] each, computed on the same samples and the same resamples."""
    return interval(values_a - values_b)
