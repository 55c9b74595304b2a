"""Merge what several relations say about each gene, by a softmax over relations per gene."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RelationMerge(nn.Module):
    r"""Per-gene softmax over channels (Zhang et al., bioRxiv 2020.11.26.400739, meta-embedding).

    .. math::
        y_i = \sum_c \alpha_{ic} z_{ic}, \quad
        \alpha_{i\cdot} = \mathrm{softmax}_c\!\left(v_c^\top z_{ic} + b_c\right)

    It starts as the plain mean over channels: v and b are zero.

    Args:
        channels: Number C of relations.
        features: Width D.

    Shapes:
        z_CND [C, N, D] -> [N, D].
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.channels, self.features = channels, features
        self.weight = nn.Parameter(torch.empty(channels, features))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to the plain mean."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, z_CND: Float[Tensor, "C N D"]) -> Float[Tensor, "N D"]:
        """One merged row a gene."""
        # Not an einsum: its backward pass is one tiny product a gene, ten times slower.
        return (self.share(z_CND)[:, :, None] * z_CND).sum(0)

    def share(self, z_CND: Float[Tensor, "C N D"]) -> Float[Tensor, "C N"]:
        """The weight alpha of each channel for each gene; columns add up to 1."""
        score_CN = (z_CND @ self.weight[:, :, None]).squeeze(-1) + self.bias[:, None]
        return score_CN.softmax(0)

    def extra_repr(self) -> str:
        """Number of channels and width."""
        return f"{self.channels}, {self.features}"
