"""Which genes change, and by how much? Metrics of one condition of cells over chosen genes: ``Profiles`` -> [n]."""

from __future__ import annotations

import numpy as np

from torchcell.data.conditions import Conditions
from torchcell.metrics.over_genes import Profiles

LARGEST = 20
"""Genes of largest true effect that ``mse_top20`` looks at."""


def own_columns(record: Conditions) -> np.ndarray:
    """Columns of the genes that each condition perturbs, int64 [n, K]; -1 for a gene that is not measured, and pads."""
    place, targets = {gene: i for i, gene in enumerate(record.genes.tolist())}, record.targets
    found = np.full((len(record), max(map(len, targets), default=1)), -1, dtype=np.int64)
    for row, genes in zip(found, targets, strict=True):
        row[: len(genes)] = [place.get(gene, -1) for gene in genes]
    return found


def mse_top20(profiles: Profiles) -> np.ndarray:
    """Mean squared error over the 20 genes of largest true change, the perturbed genes left out.

    In squared units of expression; genes tied at the edge are taken by their column. Undefined without a control.
    """
    true, _ = profiles.changes()
    size = np.where(np.isnan(true), -1.0, np.abs(true))
    row, k = np.nonzero(profiles.own_columns() >= 0)
    size[row, profiles.own_columns()[row, k]] = -1.0
    top = np.argsort(-size, axis=1, kind="stable")[:, :LARGEST]
    held = np.take_along_axis(size, top, 1) >= 0
    error = np.take_along_axis((profiles.prediction - profiles.truth) ** 2, top, 1)
    total, count = np.where(held, error, 0.0).sum(1), held.sum(1)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def des(profiles: Profiles) -> np.ndarray:
    """Differential expression score: share of the truly significant genes S among the |S| of largest predicted change.

    A prediction of means has no p-values, so that all genes stand for it and the size of S is where it is cut; genes
    tied at the cut share its places, and a constant scores |S| / G. Undefined where nothing is significant.
    (Roohani et al. 2025, Virtual Cell Challenge; there an empty S scores 0 and predictions have a test of their own.)
    """
    _, predicted = profiles.changes()
    found = np.full(len(predicted), np.nan)
    if profiles.significant is None:
        return found
    for i, (guess, true) in enumerate(zip(np.abs(predicted), profiles.significant, strict=True)):
        held = ~np.isnan(guess)
        guess, true = guess[held], true[held]
        k = int(true.sum())
        if k == 0:
            continue
        least = np.partition(guess, len(guess) - k)[len(guess) - k]
        above, tied = guess > least, guess == least
        found[i] = (true[above].sum() + (k - above.sum()) * true[tied].mean()) / k
    return found
