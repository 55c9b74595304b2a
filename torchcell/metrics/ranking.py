"""Metrics over filtered ranks, 1 is best: truth [n] (not read), rank [n], R weightings -> [R].

A rank is 1 + the number of candidates that score higher + half the number that score the same, candidates that are
known to be true being left out (Bordes et al., NeurIPS 2013). A constant thus ranks everything in the middle.
"""

from __future__ import annotations

import numpy as np

from torchcell.metrics.weights import Weights


def mrr(truth: np.ndarray, rank: np.ndarray, weights: Weights) -> np.ndarray:
    """Mean of 1 / rank."""
    return _mean(1 / rank, weights)


def hits_at_1(truth: np.ndarray, rank: np.ndarray, weights: Weights) -> np.ndarray:
    """Share of samples that rank first, and alone."""
    return _mean((rank <= 1).astype(np.float64), weights)


def hits_at_10(truth: np.ndarray, rank: np.ndarray, weights: Weights) -> np.ndarray:
    """Share of samples that rank among the first ten."""
    return _mean((rank <= 10).astype(np.float64), weights)


def _mean(values: np.ndarray, weights: Weights) -> np.ndarray:
    total, n = weights.total(values, np.ones_like(values))
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
