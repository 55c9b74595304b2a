"""Genes that a perturbation significantly changes: Wilcoxon's rank-sum test of its cells against the controls."""

from __future__ import annotations

import numpy as np
from scipy import stats

from torchcell.data.conditions import Conditions
from torchcell.data.matrices import dense

LEVEL = 0.05
"""False discovery rate (Benjamini and Hochberg) below which a gene counts as changed."""
GENES = 1024
"""Genes that are made dense and ranked at a time."""


def significant_genes(conditions: Conditions, level: float = LEVEL) -> np.ndarray:
    """Genes whose expression differs between a condition's cells and the truth's half of its controls, bool [n, G].

    The other half is left alone: a prediction's change is taken against it, and may not share its noise with the
    choice of genes. P values are corrected over the genes of a condition.

    Args:
        conditions: With their cells; not blind.
        level: False discovery rate.
    """
    p_nG = rank_sum(conditions)
    return stats.false_discovery_control(p_nG, axis=1) < level if p_nG.size else np.zeros(p_nG.shape, dtype=bool)


def rank_sum(conditions: Conditions) -> np.ndarray:
    """Two-sided p values [n, G]; 1 for a gene that never varies.

    Normal approximation, corrected for ties and continuity (Mann and Whitney 1947), as in
    ``scipy.stats.mannwhitneyu(method="asymptotic")``.
    """
    X, (ptr, member) = conditions.cells.X, conditions.controls(True)
    found = np.ones((len(conditions), len(conditions.genes)))
    for key in np.unique(conditions.group):
        rows = np.flatnonzero(conditions.group == key)
        own = [X[conditions.members(i)] for i in rows.tolist()]
        control = X[member[ptr[rows[0]] : ptr[rows[0] + 1]]]
        for start in range(0, found.shape[1], GENES):
            genes = slice(start, start + GENES)
            # Only values and where a condition ends matter, so that each condition's cells may be sorted by gene.
            ordered = [np.sort(dense(cells[:, genes]), axis=0) for cells in own]
            found[rows, genes] = p_values(ordered, np.sort(dense(control[:, genes]), axis=0))
    return found


def p_values(own: list[np.ndarray], control_mG: np.ndarray) -> np.ndarray:
    """P value of each of k conditions and each gene [k, G].

    The controls are sorted once for all conditions, and every cell finds its place among them.

    Args:
        own: Each condition's values [n_i, G], every column sorted.
        control_mG: Those of the controls, every column sorted.
    """
    n, m = np.array([len(x) for x in own], dtype=np.float64), len(control_mG)
    condition, start = np.repeat(np.arange(len(own)), n.astype(int)), np.cumsum([0, *map(len, own)])[:-1]
    u, ties = np.zeros((2, control_mG.shape[1], len(own)))
    columns = zip(np.ascontiguousarray(np.concatenate(own).T), np.ascontiguousarray(control_mG.T), strict=True)
    for g, (x, y) in enumerate(columns):
        left, right = y.searchsorted(x, "left"), y.searchsorted(x, "right")
        u[g] = np.add.reduceat(left + right, start) / 2
        # Runs of one value in one condition, and how often the controls have it.
        head = np.flatnonzero(np.r_[True, (x[1:] != x[:-1]) | (condition[1:] != condition[:-1])])
        t_x, t_y = np.diff(np.r_[head, len(x)]), (right - left)[head]
        more = _ties(t_x + t_y) - _ties(t_y)
        alone = np.diff(np.r_[np.flatnonzero(np.r_[True, y[1:] != y[:-1]]), m])
        ties[g] = np.bincount(condition[head], more, len(own)) + _ties(alone).sum()
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    varies = ties < total**3 - total
    z = (np.abs(u - n * m / 2) - 0.5) / np.sqrt(np.where(varies, variance, 1.0))
    return np.where(varies, np.minimum(2 * stats.norm.sf(z), 1.0), 1.0).T


def _ties(count: np.ndarray) -> np.ndarray:
    """What values that occur so often add to the correction for ties."""
    return count.astype(np.float64) ** 3 - count
