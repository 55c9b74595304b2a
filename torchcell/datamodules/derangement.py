"""A shuffle in which samples get the input of another sample that has another one."""

from __future__ import annotations

import torch
from torch import Tensor


def derangement(key: Tensor, generator: torch.Generator) -> Tensor | None:
    """A random order in which no sample takes the input of one with the same input.

    Args:
        key: Number of each sample's input, the same for equal inputs, int64 [m].
        generator: Of the draw.

    Returns:
        Sample i takes the input of sample ``order[i]``, int64 [m]. Where more than half of the samples share one
        input some of them keep it. None where all do, so that there is nothing to shuffle.
    """
    _, value, count = torch.unique(key, return_inverse=True, return_counts=True)
    if len(count) < 2:
        return None
    n, most = len(key), int(count.max())
    # Samples of one input side by side, inputs and samples in random order; then all move on by a block at least.
    rank = torch.randperm(len(count), generator=generator)[value]
    within = torch.randperm(n, generator=generator)
    block = within[rank[within].argsort(stable=True)]
    least, largest = min(most, n - 1), max(n - most, min(most, n - 1))
    step = least + int(torch.randint(largest - least + 1, (1,), generator=generator))
    order = torch.empty_like(block)
    order[block] = block.roll(-step)
    return order
