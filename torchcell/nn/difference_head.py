"""Scores from what a cell loses: a vector a sample whose size spans orders of magnitude."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class DifferenceHead(nn.Module):
    r"""An MLP on the direction and the size of a summed difference.

    .. math::
        y = W_2 \, \mathrm{relu}(W_1 [\mathrm{LayerNorm}(z), \log(1 + \|z\|)] + b_1) + b_2

    A hub's deletion changes a thousand nodes and a leaf's two; the logarithm keeps both in reach.

    Args:
        features: Width D of z.
        outputs: Number T of scores.
        hidden: Width of the hidden layer.
        dropout: Share of hidden units dropped in training.

    Shapes:
        z_BD [B, D] -> [B, T].
    """

    def __init__(self, features: int, outputs: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.first = nn.Linear(features + 1, hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, outputs)

    def forward(self, z_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B T"]:
        """One row of scores a sample."""
        # The root of nothing has no gradient; a set without any effect must not turn the step into NaN.
        size_B1 = z_BD.square().sum(1, keepdim=True).add(1e-12).sqrt().log1p()
        hidden_BK = torch.relu(self.first(torch.cat([self.norm(z_BD), size_B1], 1)))
        return self.second(self.dropout(hidden_BK))
