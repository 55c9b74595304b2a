"""Distances between sets of cells. They need predicted cells, and so stand beside the table: a prediction in
``Results`` is a mean, and the distance to a mean would reward what has no spread."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

ROWS = 2048
"""Cells whose distances are held at a time."""


def energy_distance(x_nG: np.ndarray, y_mG: np.ndarray) -> float:
    r"""E-distance of two sets of cells, 2 E|X - Y| - E|X - X'| - E|Y - Y'|, in units of expression.

    Euclidean distances; the means run over all pairs, a cell and itself among them, so that equal sets have 0, which is
    the least. Small sets of one kind of cell stand apart by about E|X - X'| (1/n + 1/m). (Székely and Rizzo 2013;
    Peidli et al. 2024, scPerturb.)

    Args:
        x_nG: Cells [n, G].
        y_mG: Cells [m, G].
    """
    if not len(x_nG) or not len(y_mG):
        return float("nan")
    apart = 2 * _mean_distance(x_nG, y_mG) - _mean_distance(x_nG, x_nG) - _mean_distance(y_mG, y_mG)
    return max(apart, 0.0)


def _mean_distance(x_nG: np.ndarray, y_mG: np.ndarray) -> float:
    total = sum(float(cdist(x_nG[i : i + ROWS], y_mG).sum()) for i in range(0, len(x_nG), ROWS))
    return total / (len(x_nG) * len(y_mG))
