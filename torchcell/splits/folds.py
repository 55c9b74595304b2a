"""The rule that all methods share: a seeded deal of units to folds; test is fold f, validation fold f + 1 mod n."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def deal(units: np.ndarray, n_folds: int, fold: int, seed: int) -> dict[str, str]:
    """Deal distinct ``units`` to parts by a seeded shuffle of their sorted names.

    Returns:
        unit -> ``test`` for fold ``fold``, ``val`` for the next, else ``train``.
    """
    names = np.unique(units)
    order = np.random.default_rng(seed).permutation(len(names))
    part_of_fold = {fold: "test", (fold + 1) % n_folds: "val"}
    return {str(names[unit]): part_of_fold.get(i % n_folds, "train") for i, unit in enumerate(order.tolist())}


def padded(clusters: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Names of each sample's clusters [n, K], those with fewer padded by empty texts; [n] where each has one.

    Args:
        clusters: Sorted here, so that the order in which a set was written plays no part.
    """
    widest = max(map(len, clusters), default=1)
    rows = [(*sorted(names), *[""] * (widest - len(names))) for names in clusters]
    table = np.array(rows, dtype=str).reshape(len(clusters), widest)
    return table[:, 0] if widest == 1 else table
