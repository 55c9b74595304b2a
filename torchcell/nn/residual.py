"""``Residual``: a small network on the columns of a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class ResidualOptions:
    """``model.residual`` of any model beside a prior that is made of columns.

    Attributes:
        hidden: Widths of the inner layers.
        dropout: After each of them.
    """

    hidden: Sequence[int] = (64, 64)
    dropout: float = 0.2


class Residual(nn.Module):
    """What a linear prior leaves, from the columns that it adds up. It starts at 0.

    Shapes:
        columns [B, F], standardized -> residual [B, T], in its standard deviations.
    """

    def __init__(self, n_columns: int, n_outputs: int, options: ResidualOptions) -> None:
        super().__init__()
        widths = [n_columns, *options.hidden]
        layers: list[nn.Module] = []
        for width, wider in pairwise(widths):
            layers += [nn.Linear(width, wider), nn.GELU(), nn.Dropout(options.dropout)]
        last = nn.Linear(widths[-1], n_outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, columns_BF: Float[Tensor, "B F"]) -> Float[Tensor, "B T"]:
        """The residual; a column without a value is at its mean."""
        out: Tensor = self.layers(torch.nan_to_num(columns_BF))
        return out
