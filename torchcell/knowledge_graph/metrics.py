"""Metrics of links and embeddings: ranks, Dirichlet energy, streaming scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from torchcell.evaluation.bootstrap import Weights
from torchcell.evaluation.registry import Metric as ScoredMetric
from torchcell.evaluation.registry import MetricSet, register

CHUNK = 65_536
"""Edges at once: E x D would not fit."""


def dirichlet_energy(x_ND: np.ndarray, source_E: np.ndarray, target_E: np.ndarray) -> float:
    """Squared distance over the edges, as a share of the squared length of their ends.

    Args:
        x_ND: One row a node.
        source_E: Position of each edge's start.
        target_E: Position of each edge's end.

    Returns:
        Mean ||x_s - x_t||^2 over mean (||x_s||^2 + ||x_t||^2): 0 where the ends are alike, 1 where they are at right
        angles, 2 where they are opposite; NaN without edges, or where all ends are zero.
    """
    x_ND = np.asarray(x_ND, dtype=np.float64)
    square_N = np.square(x_ND).sum(1)
    size = square_N[source_E].sum() + square_N[target_E].sum()
    inner = sum(
        float(np.einsum("ed,ed->", x_ND[source_E[i : i + CHUNK]], x_ND[target_E[i : i + CHUNK]]))
        for i in range(0, len(source_E), CHUNK)
    )
    return 1 - 2 * inner / float(size) if size > 0 else float("nan")


def dirichlet_energies(x_ND: np.ndarray, edges: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """``dirichlet_energy`` by relation."""
    return {name: dirichlet_energy(x_ND, source_E, target_E) for name, (source_E, target_E) in edges.items()}


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


RANKING = register(
    MetricSet(
        "ranking",
        (
            ScoredMetric(
                "mrr", mrr, 1, "undefined", True, "mean of 1 / rank among all candidates that are not known to be true"
            ),
            ScoredMetric("hits@1", hits_at_1, 1, "undefined", True, "share that ranks first"),
            ScoredMetric("hits@10", hits_at_10, 1, "undefined", True, "share that ranks among the first ten"),
        ),
        primary=("mrr",),
        calibration=(),
        beside=("mrr", "hits@10"),
    )
)
"""How held-out edges are scored by their rank among all candidates."""
