"""Means of groups of rows, for baselines of every task whose outputs are genes."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def group_means(values: np.ndarray, names: np.ndarray, asked: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The mean of each asked name's rows.

    Args:
        values: Rows to average [n, G].
        names: Of the rows [n].
        asked: Names [m].
        otherwise: Row for a name without rows [G].

    Returns:
        float64 [m, G].
    """
    known, row = np.unique(names, return_inverse=True)
    weight = 1 / np.bincount(row)[row]
    share = sp.csr_matrix((weight, (row, np.arange(len(row)))), shape=(len(known), len(row)))
    means = np.vstack([share @ values.astype(np.float64), otherwise])
    place = {name: i for i, name in enumerate(known.tolist())}
    return means[[place.get(name, -1) for name in asked.tolist()]]
