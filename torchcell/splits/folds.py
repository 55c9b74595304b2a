"""The rule that all methods share: a seeded deal of units to folds; test is fold f, validation fold f + 1 mod n."""

from __future__ import annotations

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
