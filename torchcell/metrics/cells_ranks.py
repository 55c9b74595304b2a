"""Is a prediction nearer to its own condition than to the others? Metrics that rank conditions: ``Profiles`` -> [n].

A condition is held against those of its context, e.g. its cell line, itself among them: N in all. A fixed vector has
a mean of (N + 1) / (2 N), since it is as near to each condition whatever is asked. A context of one condition has no
rank: undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.spatial.distance import cdist

from torchcell.metrics.over_genes import Profiles

TIE = 1e-12
"""Distances that differ by less, relative to the largest of the row, are one: their last digits depend on the order
of the genes."""


def pds(profiles: Profiles) -> np.ndarray:
    """Perturbation discrimination: 1 - r / N with r true changes nearer (L1) to the predicted change than its own.

    The perturbed genes of the condition that is asked for are left out: that they change is known. Ties count half.
    Other conditions keep theirs, so that strong knock-downs lift any fixed vector above (N + 1) / (2 N): what has no
    skill is then the row of no change.
    (Roohani et al. 2025, Virtual Cell Challenge; there ties go by the order of the file.)
    """
    true, predicted = profiles.changes()
    return _one_minus_rank(profiles, true, predicted, _city_block, 0)


def pds_cosine(profiles: Profiles) -> np.ndarray:
    """The same by the cosine, which looks at the direction of a change alone; undefined for no change."""
    true, predicted = profiles.changes()
    return _one_minus_rank(profiles, true, predicted, _cosine, 0)


def centroid_accuracy(profiles: Profiles) -> np.ndarray:
    """Share of the other conditions whose mean expression is farther (L2) from the prediction than its own is.

    Ties count half. (Vinas Torne et al. 2025, Systema.)
    """
    return _one_minus_rank(profiles, profiles.truth, profiles.prediction, _euclid, 1)


def _one_minus_rank(
    profiles: Profiles,
    true: np.ndarray,
    predicted: np.ndarray,
    distance: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    less: int,
) -> np.ndarray:
    """1 - (number of conditions nearer than one's own) / (N - ``less``) [n]."""
    found = np.full(len(true), np.nan)
    for at, genes in _comparable(profiles, true, predicted):
        place = np.full(true.shape[1] + 1, -1)
        place[np.flatnonzero(genes)] = np.arange(genes.sum())
        own = place[profiles.own_columns()[at]]
        far = distance(predicted[at][:, genes], true[at][:, genes], own)
        mine = np.diagonal(far)[:, None]
        tied = np.abs(far - mine) <= TIE * np.abs(far).max(axis=1, keepdims=True)
        # One's own is tied with itself.
        nearer = ((far < mine) & ~tied).sum(1) + (tied.sum(1) - 1) / 2
        found[at] = np.where(np.isnan(far).any(1), np.nan, 1 - nearer / (len(at) - less))
    return found


def _comparable(profiles: Profiles, true: np.ndarray, predicted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Conditions that are held against each other, and the genes that all of them have, a mask [G]."""
    held = ~np.isnan(true).all(1) & ~np.isnan(predicted).all(1)
    context = np.zeros(len(true)) if profiles.context is None else profiles.context
    for name in np.unique(context):
        at = np.flatnonzero((context == name) & held)
        genes = ~np.isnan(true[at]).any(0) & ~np.isnan(predicted[at]).any(0)
        if len(at) > 1 and genes.any():
            yield at, genes


def _city_block(predicted_nG: np.ndarray, true_nG: np.ndarray, own_nK: np.ndarray) -> np.ndarray:
    """L1 distances [n, n] of predicted (rows) to true (columns), without the row's own genes."""
    far = cdist(predicted_nG, true_nG, "cityblock")
    for row, column, counts in _own(own_nK):
        far -= counts * np.abs(predicted_nG[row, column][:, None] - true_nG[:, column].T)
    return far


def _cosine(predicted_nG: np.ndarray, true_nG: np.ndarray, own_nK: np.ndarray) -> np.ndarray:
    """1 - cosine [n, n] likewise: NaN for a predicted change of length 0, 1 to a true one."""
    product = predicted_nG @ true_nG.T
    mine = np.repeat((predicted_nG**2).sum(1)[:, None], len(true_nG), axis=1)
    other = np.repeat((true_nG**2).sum(1)[None], len(true_nG), axis=0)
    # What rounding leaves of a change that is all in its own gene is no length.
    least_mine, least_other = TIE * mine, TIE * other
    for row, column, counts in _own(own_nK):
        p, t = predicted_nG[row, column][:, None], true_nG[:, column].T
        product, mine, other = product - counts * p * t, mine - counts * p**2, other - counts * t**2
    length = np.sqrt(np.where(mine > least_mine, mine, np.nan) * np.maximum(other, 0))
    return 1 - np.where(other > least_other, product, 0) / np.where(other > least_other, length, 1 + 0 * length)


def _euclid(predicted_nG: np.ndarray, true_nG: np.ndarray, own_nK: np.ndarray) -> np.ndarray:
    """L2 distances [n, n] over all genes."""
    return cdist(predicted_nG, true_nG, "euclidean")


def _own(own_nK: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows and columns of the genes to leave out, and whether there is one [n, 1]; a gene named twice counts once."""
    for k in range(own_nK.shape[1]):
        column = own_nK[:, k]
        counts = (column >= 0) & ~(own_nK[:, :k] == column[:, None]).any(1)
        yield np.arange(len(column)), np.maximum(column, 0), counts[:, None]
