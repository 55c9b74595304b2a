"""Means of what an epoch has summed up, over the batches of all processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed


def means(sums: Mapping[str, Tensor], counts: Mapping[str, int], device: torch.device, world: int) -> dict[str, Tensor]:
    """Sum over count by name, in one exchange.

    Args:
        sums: By name; a process may lack a name that others have, e.g. of a measure that its batches could not give.
        counts: What each was summed over.
        device: Of the exchange.
        world: Number of processes; all call this.

    Returns:
        The same values in all processes.
    """
    if world == 1:
        return {name: value / counts[name] for name, value in sums.items()}
    every: list[list[str]] = [[] for _ in range(world)]
    distributed.all_gather_object(every, list(sums))
    names = sorted({name for one in every for name in one})
    if not names:
        return {}
    both = torch.zeros(2, len(names), dtype=torch.float64, device=device)
    for at, name in enumerate(names):
        if name in sums:
            both[0, at], both[1, at] = sums[name].double(), counts[name]
    distributed.all_reduce(both)
    return {name: value.float() for name, value in zip(names, both[0] / both[1], strict=True)}
