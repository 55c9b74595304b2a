"""What the pairs of a set say: products of its members' vectors, summed over the pairs."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.nn.ragged import segment_sum


class PairProduct(nn.Module):
    r"""A bilinear score of each pair of a set, and an effect of each member.

    .. math::
        y = W \sum_{i < j} e_i \circ e_j + V \sum_i e_i, \quad
        \sum_{i < j} e_i \circ e_j = \tfrac12 \Big( \big(\sum_i e_i\big)^2 - \sum_i e_i^2 \Big)

    A pooled network has to find the product of two genes' vectors by itself, and learns it last, after overfitting;
    here it is given. The sum over pairs costs one row a member, for sets of any size.

    Args:
        features: Width P of a member.
        outputs: Number T of scores.

    Shapes:
        e_MP [M, P] and ptr [B + 1] -> [B, T].
    """

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.features, self.outputs = features, outputs
        self.pair = nn.Linear(features, outputs, bias=False)
        self.single = nn.Linear(features, outputs, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Signs for the pairs, so that both attraction and repulsion can be said at once; no effect of a member."""
        with torch.no_grad():
            self.pair.weight.normal_().sign_()
        nn.init.zeros_(self.single.weight)

    def forward(self, e_MP: Float[Tensor, "M P"], ptr_P: Int[Tensor, " Q"]) -> Float[Tensor, "B T"]:
        """One row of scores a set; ``ptr_P`` [B + 1] says which members are whose."""
        total_BP, square_BP = segment_sum(e_MP, ptr_P), segment_sum(e_MP.square(), ptr_P)
        return self.pair((total_BP.square() - square_BP) / 2) + self.single(total_BP)

    def extra_repr(self) -> str:
        """Widths."""
        return f"{self.features}, {self.outputs}"
