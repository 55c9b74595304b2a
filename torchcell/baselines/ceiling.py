"""The replicate ceiling: what a noiseless prediction would score."""

from __future__ import annotations

import numpy as np

from torchcell.data.screen import Screen


def replicate_ceiling(record: Screen) -> np.ndarray | None:
    """A stand-in for the noiseless phenotype, to be scored against the mean of all replicates.

    Half against half tells of the noise of half the replicates, and half against all shares its noise with
    what it is scored on: pure noise reaches a Pearson of .7. So the difference d of the halves is used, which
    does not correlate with the mean y of all. With r the share of var(y) that is not noise (from the variance
    within samples; for two equal halves the Spearman-Brown reliability), and c the mean of y,

        p = c + r (y - c) + sqrt(r) e,    e = d sqrt(n_a n_b) / (n_a + n_b).

    p has the variance r var(y) and the covariance r var(y) with y: both moments of the noiseless phenotype. Its
    Pearson is therefore sqrt(r), its r2 is r and its mse the noise of the mean, the best any model can expect;
    metrics beyond second moments (Spearman, AUROC) agree as far as values are normal. Replicates are dealt to the
    halves alternately. Nothing is fitted on train: the ceiling describes the part that is scored.

    Args:
        record: The evaluated part, with its phenotype and ``replicates`` [n, R, T]; NaN is a missing replicate.

    Returns:
        float32 [n, T]; NaN for samples with fewer than two replicates; None for a record without replicates.
    """
    if record.replicates is None:
        return None
    t = record.replicates.shape[2]
    return np.stack([_ceiling(record.replicates[:, :, k].astype(np.float64)) for k in range(t)], 1)


def half_means(replicates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of every other replicate [n, R, T] -> two [n, T]; NaN where a half has none."""
    held = ~np.isnan(replicates)
    first = held & (np.cumsum(held, axis=1) % 2 == 1)
    return _mean_of(replicates, first), _mean_of(replicates, held & ~first)


def _mean_of(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    count = chosen.sum(1)
    total = np.where(chosen, values, 0).sum(1, dtype=np.float64)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _ceiling(value: np.ndarray) -> np.ndarray:
    """The stand-in for one phenotype with replicates ``value`` [n, R]; float32 [n]."""
    stand_in = np.full(len(value), np.nan, dtype=np.float32)
    held = ~np.isnan(value)
    enough = held.sum(1) >= 2
    if enough.sum() < 2:
        return stand_in
    value, held = value[enough], held[enough]
    count = held.sum(1)
    mean = np.where(held, value, 0).sum(1) / count
    within = np.where(held, value - mean[:, None], 0) ** 2
    noise = within.sum() / (count - 1).sum()  # variance of a single replicate, pooled
    total = mean.var()
    reliability = float(np.clip(1 - noise * np.mean(1 / count) / total, 0, 1)) if total > 0 else 0.0
    first = held & (np.cumsum(held, axis=1) % 2 == 1)
    n_a, n_b = first.sum(1), (held & ~first).sum(1)
    a, b = np.where(first, value, 0).sum(1) / n_a, np.where(held & ~first, value, 0).sum(1) / n_b
    error = (a - b) * np.sqrt(n_a * n_b) / count
    stand_in[enough] = mean.mean() + reliability * (mean - mean.mean()) + np.sqrt(reliability) * error
    return stand_in
