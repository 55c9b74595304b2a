"""Metrics of one sample over its genes: truth [n, G], prediction [n, G], reference [n, G] -> [n].

A missing gene (NaN in truth or prediction) is left out of its sample. A sample on which the metric is
undefined is NaN; the evaluator counts it.
"""

from __future__ import annotations

import numpy as np

from torchcell.metrics.scalar import FLAT


def pearson_delta(truth: np.ndarray, prediction: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
    """Correlation over genes of true and predicted change from ``reference``; undefined for no change."""
    if reference is None:
        return np.full(len(truth), np.nan)
    missing = np.isnan(truth) | np.isnan(prediction) | np.isnan(reference)
    x = np.where(missing, np.nan, truth - reference)
    y = np.where(missing, np.nan, prediction - reference)
    size = np.maximum(np.abs(truth), np.abs(reference))
    n = np.maximum((~missing).sum(1, keepdims=True), 1)
    x, y = x - np.nansum(x, 1, keepdims=True) / n, y - np.nansum(y, 1, keepdims=True) / n
    # Rounding of the levels, not of the change, bounds what counts as no change.
    flat = FLAT * np.nanmax(np.where(missing, 0, size), axis=1) * np.sqrt(n[:, 0])
    norm_x, norm_y = np.sqrt(np.nansum(x * x, 1)), np.sqrt(np.nansum(y * y, 1))
    defined = (norm_x > flat) & (norm_y > flat)
    return np.divide(np.nansum(x * y, 1), norm_x * norm_y, out=np.full(len(x), np.nan), where=defined)


def mse_over_genes(truth: np.ndarray, prediction: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
    """Mean squared error over genes, in squared units of expression; the reference plays no part."""
    return _mean((prediction - truth) ** 2)


def mae_over_genes(truth: np.ndarray, prediction: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
    """Mean absolute error over genes, in units of expression; the reference plays no part."""
    return _mean(np.abs(prediction - truth))


def _mean(error: np.ndarray) -> np.ndarray:
    held = (~np.isnan(error)).sum(1)
    return np.divide(np.nansum(error, 1), held, out=np.full(len(error), np.nan), where=held > 0)
