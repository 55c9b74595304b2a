"""Attention through a few learned points, linear in the tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from torchcell.data.errors import InputError
from torchcell.nn.neighbour_attention import refuse_narrow


class InducedAttention(nn.Module):
    r"""Points look at all tokens, then each token looks at the points.

    .. math::
        h = \mathrm{LayerNorm}(p + \mathrm{attention}(p, x, x)), \quad y = \mathrm{attention}(x, h, h)

    with I learned points p, the same for all cells.

    Args:
        features: Width D of a token.
        heads: D / heads must be at least 16.
        points: I.

    Shapes:
        x_CTD [C, T, D] -> [C, T, D].

    Raises:
        InputError: Heads that don't fit the width, or no point.

    Source: Lee et al., ICML 2019, arXiv:1810.00825, eq. 9 (ISAB).
    """

    def __init__(self, features: int, heads: int, points: int = 32) -> None:
        super().__init__()
        refuse_narrow(features, heads)
        if points < 1:
            raise InputError(f"induced attention needs at least one point, not {points}")
        self.features, self.heads = features, heads
        self.point_embedding = nn.Parameter(torch.empty(points, features))
        self.point_query = nn.Linear(features, features, bias=False)
        self.point_norm = nn.LayerNorm(features)
        self.token = nn.Linear(features, 3 * features, bias=False)  # keys and values for the points, then queries
        self.from_points = nn.Linear(features, 2 * features, bias=False)
        self.output = nn.Linear(features, features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        nn.init.normal_(self.point_embedding)
        for layer in (self.point_query, self.point_norm, self.token, self.from_points, self.output):
            layer.reset_parameters()

    def forward(self, x_CTD: Float[Tensor, "C T D"]) -> Float[Tensor, "C T D"]:
        """One row a token."""
        key, value, query = (self._heads(x) for x in self.token(x_CTD).chunk(3, -1))
        asked = self._heads(self.point_query(self.point_embedding)[None]).expand(len(x_CTD), -1, -1, -1)
        h_CID = scaled_dot_product_attention(asked, key, value).transpose(1, 2).flatten(2)
        h_CID = self.point_norm(self.point_embedding + h_CID)
        key, value = (self._heads(x) for x in self.from_points(h_CID).chunk(2, -1))
        y_CHTd = scaled_dot_product_attention(query, key, value)
        return self.output(y_CHTd.transpose(1, 2).flatten(2))

    def _heads(self, x_CTD: Tensor) -> Tensor:
        return x_CTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def extra_repr(self) -> str:
        """Width, heads and points."""
        return f"{self.features}, heads={self.heads}, points={len(self.point_embedding)}"
