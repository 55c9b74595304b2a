"""What pairs a perturbed cell with control cells: groups of covariates, and halves of controls."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from torchcell.data.cells import CellExpression
from torchcell.data.errors import InputError, near, some

BAR = "|"
"""Between the values of a group's covariates."""
EVERYWHERE = "all"
"""The one group where controls are not paired."""


def groups_of(cells: CellExpression, covariates: Sequence[str]) -> np.ndarray:
    """Values of the covariates of each cell joined by ``|`` [n], or ``all``.

    Raises:
        InputError: An unknown covariate, or a value that itself holds ``|``.
    """
    unknown = [name for name in covariates if name not in cells.covariates]
    if unknown:
        hint = near(unknown[0], list(cells.covariates)) or list(cells.covariates)
        raise InputError(f"{cells.name}: no covariate {some(unknown)} to pair controls by; the nearest are {hint}")
    if not covariates:
        return np.full(len(cells), EVERYWHERE)
    columns = {name: cells.covariates[name].astype(str).tolist() for name in covariates}
    for name, values in columns.items():
        if barred := sorted({value for value in values if BAR in value}):
            raise InputError(
                f"{cells.name}: {len(barred)} value(s) of the covariate {name} hold '{BAR}', which joins the values of "
                f"a group: {some(barred)}; rename them in obs"
            )
    return np.array([BAR.join(values) for values in zip(*columns.values(), strict=True)])


def refuse_lone_groups(
    name: str, own: np.ndarray, of_group: Mapping[str, np.ndarray], covariates: Sequence[str]
) -> None:
    """Raise if a group has no control cells, or one only, which can't be dealt to two halves."""
    lone = [group for group in np.unique(own).tolist() if len(of_group.get(group, ())) < 2]
    if lone:
        by = ", ".join(covariates) or "nothing"
        raise InputError(
            f"{name}: {len(lone)} group(s) with fewer than 2 control cells when paired by {by}: {some(lone)}; pair by "
            "fewer covariates, or leave these groups out"
        )


def halves(n: int, of_group: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    """Deal each group's control cells to two halves, bool [n]: true for the truth's."""
    half = np.zeros(n, dtype=bool)
    for group, at in of_group.items():
        rng = np.random.default_rng([seed, zlib.crc32(group.encode())])
        half[at[rng.permutation(len(at))[: (len(at) + 1) // 2]]] = True
    return half


def stratified(keys: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Positions of ``n`` cells drawn at random, sorted; cells that share a key keep their share, to a cell.

    Args:
        keys: What a cell is counted with [n_cells].
        n: At least 1; all cells where there are no more.
        seed: Of the draw.
    """
    if n < 1:
        raise InputError(f"data.max_cells={n}: must be 1 or more")
    _, row, count = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(keys))
    order = order[np.argsort(row[order], kind="stable")]
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    share = (np.arange(len(keys)) - first[row[order]] + 0.5) / count[row[order]]
    return np.sort(order[np.argsort(share, kind="stable")[:n]])
