"""Metrics over samples of one scalar phenotype: truth [n], prediction [n], R weightings -> [R].

Every function takes finite float64 vectors and returns NaN, never 0, where it is undefined.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from torchcell.metrics.weights import Weights

FLAT = 1e-6
"""A vector whose sd is below this share of its largest magnitude is constant but for float32 rounding."""


def is_flat(x: np.ndarray) -> bool:
    """Whether ``x`` [n] is constant but for rounding (an empty vector is)."""
    return len(x) == 0 or bool(np.std(x) <= FLAT * np.max(np.abs(x)))


def pearson(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Correlation of truth and prediction; undefined when either is constant."""
    if is_flat(truth) or is_flat(prediction):
        return _undefined(weights)
    # Centred first: the sums below then lose no digits to a large mean.
    x, y = truth - truth.mean(), prediction - prediction.mean()
    n, sx, sy, sxx, syy, sxy = weights.total(np.ones_like(x), x, y, x * x, y * y, x * y)
    var_x, var_y = sxx - _ratio(sx**2, n), syy - _ratio(sy**2, n)
    # A resample that repeats one value has a variance of rounding errors only.
    varies = (var_x > 1e-12 * sxx) & (var_y > 1e-12 * syy)
    covariance = sxy - _ratio(sx * sy, n)
    value = _ratio(covariance, np.sqrt(np.where(varies, var_x * var_y, np.nan)))
    return np.clip(value, -1, 1)


def spearman(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Pearson correlation of average ranks; undefined when either is constant.

    Ranks are those of the full set and stay fixed under resampling: a resample changes the weights of ranked
    samples, not the ranks themselves, so integer weights equal repeated rows only where all are 1.
    """
    if is_flat(truth) or is_flat(prediction):
        return _undefined(weights)
    return pearson(rankdata(truth), rankdata(prediction), weights)


def mse(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Mean squared error, in squared units of the phenotype."""
    total, n = weights.total((prediction - truth) ** 2, np.ones_like(truth))
    return _ratio(total, n)


def rmse(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Root of the mean squared error, in units of the phenotype."""
    return np.sqrt(mse(truth, prediction, weights))


def mae(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Mean absolute error, in units of the phenotype."""
    total, n = weights.total(np.abs(prediction - truth), np.ones_like(truth))
    return _ratio(total, n)


def brier(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Mean squared error of a probability; undefined for scores outside 0 to 1, which are none."""
    if len(prediction) and (prediction.min() < 0 or prediction.max() > 1):
        return _undefined(weights)
    return mse(truth, prediction, weights)


def r2(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """1 - SSE / SST about the truth's own mean; may be negative, undefined for a constant truth."""
    if is_flat(truth):
        return _undefined(weights)
    x = truth - truth.mean()
    n, sx, sxx, sse = weights.total(np.ones_like(x), x, x * x, (prediction - truth) ** 2)
    sst = sxx - _ratio(sx**2, n)
    return 1 - _ratio(sse, np.where(sst > 1e-12 * sxx, sst, np.nan))


def auroc(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Chance that a positive is scored above a negative, ties counting half; undefined with one class."""
    order, first, after = _ties(prediction)
    positive = truth[order] > 0.5
    values = []
    for weight in weights.per_sample(order):
        pos, below = weight[:, positive], _running(weight * ~positive)
        # Negatives scored below, and half of those with the same score.
        beaten = (np.take(below, first[positive], axis=1) + np.take(below, after[positive], axis=1)) / 2
        values.append(_ratio(np.einsum("rn,rn->r", pos, beaten), pos.sum(1) * below[:, -1]))
    return np.concatenate(values)


def auprc(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Average precision, tied scores being one threshold; undefined with one class."""
    order, _, after = _ties(-prediction)
    positive = truth[order] > 0.5
    values = []
    for weight in weights.per_sample(order):
        pos, called, found = weight[:, positive], _running(weight), _running(weight * positive)
        both = (found[:, -1] > 0) & (found[:, -1] < called[:, -1])
        at = after[positive]
        precision = np.take(found, at, axis=1) / np.maximum(np.take(called, at, axis=1), 1)
        values.append(_ratio(np.einsum("rn,rn->r", pos, precision), np.where(both, found[:, -1], np.nan)))
    return np.concatenate(values)


def _ties(score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples by rising ``score`` [n]; where the run of equal scores of each begins, and ends (exclusive)."""
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    return order, np.searchsorted(ranked, ranked, "left"), np.searchsorted(ranked, ranked, "right")


def _running(weight: np.ndarray) -> np.ndarray:
    """Running sums of ``weight`` [R, n] with a leading zero [R, n + 1]."""
    total = np.zeros((len(weight), weight.shape[1] + 1))
    np.cumsum(weight, axis=1, out=total[:, 1:])
    return total


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """``top / bottom``, NaN where the denominator is 0 or undefined."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom != 0)


def _undefined(weights: Weights) -> np.ndarray:
    return np.full(len(weights.count), np.nan)
