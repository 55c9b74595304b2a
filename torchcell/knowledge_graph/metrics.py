"""Metrics of links and embeddings: ranks, Dirichlet energy, streaming scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from torchcell.evaluation.bootstrap import Weights

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


class StreamingLinks(Metric):
    """Code of the metaedge, source and target of each link [n, 3]; ranks need all of them at once."""

    full_state_update = False
    links: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("links", [], dist_reduce_fx="cat")

    def update(self, metaedge_P: Int[Tensor, " P"], source_P: Int[Tensor, " P"], target_P: Int[Tensor, " P"]) -> None:
        """Add the links of a batch."""
        self.links.append(torch.stack([metaedge_P, source_P, target_P], dim=1))

    def compute(self) -> Int[Tensor, "n 3"]:
        """The links since the last ``reset``, sorted: the same whatever the batches and processes."""
        links_n3 = dim_zero_cat(self.links) if len(self.links) else torch.zeros(0, 3, dtype=torch.int64)
        return links_n3.unique(dim=0)
