"""How alike the nodes of a graph have become: two numbers that a collapse drives to 0 and to 1."""

from __future__ import annotations

import torch
from torch import Tensor


def oversmoothing(x_ND: Tensor) -> Tensor:
    """Mean squared distance to the mean row over mean squared norm: 1 for centred rows, 0 when all are one.

    Args:
        x_ND: One row a node [N, D].

    Returns:
        A scalar in [0, 1]; NaN where all rows are zero. It does not change when all rows are scaled.
    """
    spread = (x_ND - x_ND.mean(0)).square().sum(1).mean()
    size = x_ND.square().sum(1).mean()
    return torch.where(size > 0, spread / size, torch.nan)


def effective_rank(x_ND: Tensor) -> Tensor:
    """Exponential of the entropy of the singular values (Roy and Vetterli, EUSIPCO 2007): 1 to min(N, D).

    Args:
        x_ND: One row a node [N, D].

    Returns:
        A scalar; NaN where all rows are zero or a number is not finite.
    """
    if not torch.isfinite(x_ND).all():
        return torch.full((), torch.nan, device=x_ND.device)
    values = torch.linalg.svdvals(x_ND.float())
    share = values / values.sum()
    return torch.special.entr(share).sum().exp()
