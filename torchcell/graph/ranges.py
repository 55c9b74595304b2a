"""Ragged sets as tensors: whose each member is, and many ranges written out as one list."""

from __future__ import annotations

import torch
from torch import Tensor


def owner(ptr: Tensor, n_members: int) -> Tensor:
    """The set that each member belongs to.

    Args:
        ptr: Set b holds members ``ptr[b]`` to ``ptr[b + 1]``, int64 [B + 1].
        n_members: M, which spares the device a synchronisation.

    Returns:
        int64 [M].
    """
    sets = torch.arange(len(ptr) - 1, device=ptr.device)
    return torch.repeat_interleave(sets, ptr.diff(), output_size=n_members)


def expand(start: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """All numbers of the ranges ``start[i]`` to ``start[i] + size[i]``, one range after the other.

    Args:
        start: First numbers, int64 [C].
        size: Lengths, int64 [C]; may be 0.

    Returns:
        The numbers, int64 [E], and the range that each comes from, int64 [E].
    """
    total = int(size.sum())
    whose = torch.repeat_interleave(torch.arange(len(size), device=size.device), size, output_size=total)
    return torch.arange(total, device=size.device) + (start - (size.cumsum(0) - size))[whose], whose
