"""Hyper-SAGNN: a score for a set of genes from how each member differs from what the others make of it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcell.nn.ragged import pad


class HyperSAGNN(nn.Module):
    r"""Hyper-SAGNN (Zhang, Zou and Ma, ICLR 2020, arXiv:1911.02613) on sets of any size.

    .. math::
        s_i = \tanh(W_s x_i), \quad d_i = \tanh(W_o \, \mathrm{attention}_{j \ne i}(x_i, x_j)), \quad
        y = \frac{1}{|S|} \sum_{i \in S} W_y \, g(d_i, s_i) + b

    with g = (d - s)^2 as published, or g = d * s. The attention of a member runs over the other members of
    its own set, never over the batch: sets are padded to the largest. A set of one has no others, so its d
    is 0. The order of the members changes nothing.

    Args:
        features: Width D of a member.
        outputs: Number T of scores.
        heads: Attention heads; D must be a multiple.
        score: ``difference`` for (d - s)^2, ``product`` for d * s.
        dropout: Share of g's entries dropped in training.

    Shapes:
        x_MD [M, D] and ptr [B + 1] -> [B, T].
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        heads: int = 4,
        score: str = "difference",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if features % heads:
            raise ValueError(f"{features} features do not divide into {heads} heads")
        if score not in ("difference", "product"):
            raise ValueError(f"score is 'difference' or 'product', not {score!r}")
        self.features, self.outputs, self.heads = features, outputs, heads
        self.score, self.dropout = score, dropout
        self.static = nn.Linear(features, features)
        self.query_key_value = nn.Linear(features, 3 * features, bias=False)
        self.dynamic = nn.Linear(features, features)
        self.readout = nn.Linear(features, outputs)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: rotations before the score and signs after it.

        So a fresh layer is already an indefinite bilinear form of unit size. With the usual small weights
        the product of two members' features starts near zero and is learned last, after overfitting.
        """
        self.query_key_value.reset_parameters()
        for weight in (self.static.weight, self.dynamic.weight, self.query_key_value.weight[-self.features :]):
            nn.init.orthogonal_(weight.data)
        with torch.no_grad():
            self.readout.weight.normal_().sign_()
        for layer in (self.static, self.dynamic, self.readout):
            nn.init.zeros_(layer.bias)

    def forward(self, x_MD: Float[Tensor, "M D"], ptr_P: Int[Tensor, " P"]) -> Float[Tensor, "B T"]:
        """One row of scores a set; ``ptr_P`` [B + 1] says which members are whose."""
        index_BS, mask_BS = pad(ptr_P)
        static_MD = torch.tanh(self.static(x_MD))
        dynamic_BSD = self._dynamic(self.query_key_value(x_MD)[index_BS], mask_BS)
        static_BSD = static_MD[index_BS]
        both = dynamic_BSD * static_BSD if self.score == "product" else (dynamic_BSD - static_BSD).square()
        # The readout is linear, so the mean over the members may come before it.
        share_BS = mask_BS / mask_BS.sum(1, keepdim=True).clamp(min=1)
        pooled_BD = torch.einsum("bs,bsd->bd", share_BS.to(both.dtype), both)
        return self.readout(nn.functional.dropout(pooled_BD, self.dropout, self.training))

    def _dynamic(self, qkv_BSF: Float[Tensor, "B S F"], mask_BS: Bool[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """What the other members of the set make of each member; 0 where there are no others."""
        n_sets, size, _ = qkv_BSF.shape
        width = self.features // self.heads
        query, key, value = qkv_BSF.view(n_sets, size, 3, self.heads, width).permute(2, 0, 3, 1, 4)
        self_SS = torch.eye(size, dtype=torch.bool, device=mask_BS.device)
        other_BSS = mask_BS[:, :, None] & mask_BS[:, None, :] & ~self_SS
        score_BHSS = query @ key.transpose(-1, -2) / math.sqrt(width)
        # The lowest finite number, not -inf: a member without others would turn into NaN.
        score_BHSS = score_BHSS.masked_fill(~other_BSS[:, None], torch.finfo(score_BHSS.dtype).min)
        seen_BSD = (score_BHSS.softmax(-1) @ value).transpose(1, 2).reshape(n_sets, size, self.features)
        return torch.tanh(self.dynamic(seen_BSD)) * other_BSS.any(-1, keepdim=True)

    def extra_repr(self) -> str:
        """Widths, heads and the score."""
        return f"{self.features}, {self.outputs}, heads={self.heads}, score={self.score}, dropout={self.dropout}"
