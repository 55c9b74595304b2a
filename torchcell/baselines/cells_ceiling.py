"""The split-half ceiling of cells: what a noiseless prediction of each condition's mean would score."""

from __future__ import annotations

import zlib

import numpy as np

from torchcell.data.conditions import Conditions
from torchcell.data.matrices import dense


def split_half_ceiling(record: Conditions, seed: int = 0) -> np.ndarray:
    r"""A stand-in for the noiseless mean of each condition, to be scored against the mean of all its cells.

    Half of the cells against all of them shares noise, half against half has too much of it. The difference of the
    halves' means, e = (a - b) sqrt(n_a n_b) / (n_a + n_b), has the noise of the mean y of all cells and does not
    correlate with it. With x = y - m, m the mean of both halves of the controls, s the part of x along the mean of the
    other conditions' x and a constant over genes, N the noise of y (variance between cells over their number, mean over
    genes) and r = 1 - N / var(x - s) over genes,

        p = m + s + r (x - s) + sqrt(r) e.

    p has over genes the variance of the noiseless mean and its covariance with y, with each half of the controls and
    with what perturbations share: ``mse`` is N, and the correlations of changes are those of the noiseless mean. What
    looks beyond second moments over all genes (``mae``, ``mse_top20``, ``des``, ranks) agrees as far as genes are
    alike.

    Args:
        record: The evaluated part, with its cells.
        seed: Of the halves, with the condition's name.

    Returns:
        float32 [n, G]; NaN for a condition of one cell.
    """
    middle_nG = (record.control.astype(np.float64) + record.other_control) / 2
    x_nG = record.target.astype(np.float64) - middle_nG
    found = np.full(x_nG.shape, np.nan, dtype=np.float32)
    for i in np.flatnonzero(record.sizes > 1).tolist():
        cells_mG = dense(record.cells.X[record.members(i)]).astype(np.float64)
        one, two = _halves(record, i, seed)
        scale = np.sqrt(len(one) * len(two)) / len(cells_mG)
        error = scale * (cells_mG[one].mean(0) - cells_mG[two].mean(0))
        noise = cells_mG.var(0, ddof=1).mean() / len(cells_mG)
        span = _span(np.delete(x_nG, i, axis=0))
        shared, error = span @ (span.T @ x_nG[i]), error - span @ (span.T @ error)
        rest = x_nG[i] - shared
        varies = (rest**2).sum() / max(len(rest) - span.shape[1], 1)
        r = float(np.clip(1 - noise / varies, 0, 1)) if varies > 0 else 0.0
        found[i] = middle_nG[i] + shared + r * rest + np.sqrt(r) * error
    return found


def half_means(record: Conditions, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean expression of either half of each condition's cells, two of [n, G]; NaN for a condition of one cell."""
    found = np.full((2, len(record), len(record.genes)), np.nan)
    for i in np.flatnonzero(record.sizes > 1).tolist():
        cells_mG = dense(record.cells.X[record.members(i)]).astype(np.float64)
        for half, at in enumerate(_halves(record, i, seed)):
            found[half, i] = cells_mG[at].mean(0)
    return found[0], found[1]


def _halves(record: Conditions, condition: int, seed: int) -> list[np.ndarray]:
    """A condition's cells in two halves, by its name."""
    rng = np.random.default_rng([seed, zlib.crc32(str(record.sample_id[condition]).encode())])
    return np.array_split(rng.permutation(int(record.sizes[condition])), 2)


def _span(others_nG: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span a constant and the mean of the rows [G, 1 or 2]."""
    constant = np.full((others_nG.shape[1], 1), 1 / np.sqrt(others_nG.shape[1]))
    mean = others_nG.mean(0) if len(others_nG) else np.zeros(others_nG.shape[1])
    rest = mean - mean.mean()
    length = np.linalg.norm(rest)
    return np.column_stack([constant, rest / length]) if length > 1e-9 else constant
