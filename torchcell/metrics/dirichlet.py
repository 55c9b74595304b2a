"""Dirichlet energy: how unlike the two ends of a relation's edges are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
