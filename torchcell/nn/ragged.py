"""Sets of different sizes, as members and pointers: padding, and sums and means over each set."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torchcell.graph.cell_graph import owner


def pad(ptr_P: Int[Tensor, " P"]) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """Positions of the members of each set as a padded matrix.

    Args:
        ptr_P: Set b has members ``ptr[b]`` to ``ptr[b + 1]``, [B + 1].

    Returns:
        index [B, S] with S the size of the largest set, and mask [B, S], true at members. ``x[index]`` is x padded;
        where the mask is false the index is 0.
    """
    size_B = ptr_P.diff()
    longest = int(size_B.max()) if len(size_B) else 0
    step_S = torch.arange(longest, device=ptr_P.device)
    mask_BS = step_S < size_B[:, None]
    return torch.where(mask_BS, ptr_P[:-1, None] + step_S, 0), mask_BS


def segment_sum(x_MD: Float[Tensor, "M D"], ptr_P: Int[Tensor, " P"]) -> Float[Tensor, "B D"]:
    """Sum over the members of each set; zeros for an empty one.

    Args:
        x_MD: One row a member [M, D].
        ptr_P: Set b has rows ``ptr[b]`` to ``ptr[b + 1]``, [B + 1].

    Returns:
        [B, D].
    """
    total_BD = x_MD.new_zeros(len(ptr_P) - 1, x_MD.shape[1])
    return total_BD.index_add(0, owner(ptr_P, len(x_MD)), x_MD)


def segment_mean(x_MD: Float[Tensor, "M D"], ptr_P: Int[Tensor, " P"]) -> Float[Tensor, "B D"]:
    """Mean over the members of each set; zeros for an empty one.

    Args:
        x_MD: One row a member [M, D].
        ptr_P: Set b has rows ``ptr[b]`` to ``ptr[b + 1]``, [B + 1].

    Returns:
        [B, D].
    """
    return segment_sum(x_MD, ptr_P) / ptr_P.diff().clamp(min=1)[:, None]
