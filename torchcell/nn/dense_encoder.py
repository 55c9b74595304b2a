"""Two linear layers with norms: what turns a vector of any width into one of the model's width."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class DenseEncoder(nn.Module):
    r"""Linear, LayerNorm, ReLU, dropout, Linear, LayerNorm; entries of the output have variance 1 over the width.

    Args:
        features: Width F of the input.
        hidden: Width of the hidden layer.
        width: Width W of the output.
        dropout: Share of hidden units dropped in training.
        input_dropout: Share of the input's entries dropped in training.

    Shapes:
        x_BF [B, F] -> [B, W].
    """

    def __init__(
        self, features: int, hidden: int, width: int, dropout: float | int = 0.0, input_dropout: float | int = 0.0
    ) -> None:
        super().__init__()
        self.input_dropout = nn.Dropout(input_dropout)
        self.first = nn.Linear(features, hidden)
        self.first_norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, width)
        self.second_norm = nn.LayerNorm(width)

    def forward(self, x_BF: Float[Tensor, "B F"]) -> Float[Tensor, "B W"]:
        """One row an input."""
        hidden_BK = self.first_norm(self.first(self.input_dropout(x_BF))).relu()
        return self.second_norm(self.second(self.dropout(hidden_BK)))
