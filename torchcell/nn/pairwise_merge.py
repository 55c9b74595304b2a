"""Merge what several relations say about each node by looking at them two at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PairwiseMerge(nn.Module):
    r"""An MLP for each pair of relations, weighted by a softmax over the pairs.

    .. math::
        y_i = \sum_{r < s} \alpha_{rs} \, V_{rs} \, \mathrm{relu}(U_{rs} z_{ri} + U'_{rs} z_{si} + b_{rs}), \quad
        \alpha = \mathrm{softmax}(a)

    So a node can be told apart by what two networks say together. A single relation is paired with itself.

    Args:
        relations: Number R of relations.
        features: Width D.

    Shapes:
        z_RND [R, N, D] -> [N, D].
    """

    def __init__(self, relations: int, features: int) -> None:
        super().__init__()
        self.relations, self.features = relations, features
        pairs = torch.combinations(torch.arange(relations), 2) if relations > 1 else torch.zeros(1, 2, dtype=torch.long)
        self.pairs: list[list[int]] = pairs.tolist()
        self.left = nn.Parameter(torch.empty(len(pairs), features, features))
        self.right = nn.Parameter(torch.empty(len(pairs), features, features))
        self.out = nn.Parameter(torch.empty(len(pairs), features, features))
        self.hidden_bias = nn.Parameter(torch.zeros(len(pairs), features))
        self.score = nn.Parameter(torch.zeros(len(pairs)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new matrices; all pairs weigh alike."""
        bound = (3 / self.features) ** 0.5
        for matrix, share in ((self.left, 0.5), (self.right, 0.5), (self.out, 1.0)):
            nn.init.uniform_(matrix, -bound * share**0.5, bound * share**0.5)
        nn.init.zeros_(self.hidden_bias)
        nn.init.zeros_(self.score)

    def forward(self, z_RND: Float[Tensor, "R N D"]) -> Float[Tensor, "N D"]:
        """One merged row a node."""
        share = self.share()
        total_ND = torch.zeros_like(z_RND[0])
        for number, (r, s) in enumerate(self.pairs):  # one pair at a time: there are R(R - 1)/2 of them
            hidden_ND = torch.relu(
                z_RND[r] @ self.left[number] + z_RND[s] @ self.right[number] + self.hidden_bias[number]
            )
            total_ND = total_ND + share[number] * (hidden_ND @ self.out[number])
        return total_ND

    def share(self) -> Float[Tensor, " P"]:
        """The weight of each pair; they add up to 1."""
        return self.score.softmax(0)

    def extra_repr(self) -> str:
        """Number of relations and width."""
        return f"{self.relations}, {self.features}"
