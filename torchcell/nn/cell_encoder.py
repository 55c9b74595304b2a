"""The wild-type cell as a transformer sees it: CLS and a token a gene, without positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchcell.nn.transformer_layer import TransformerLayer


class HeadScores(NamedTuple):
    """What a graph term reads of one head: queries and keys of all tokens, and their log-sum-exp if asked for."""

    q_TD: Tensor
    k_TD: Tensor
    lse_T: Tensor | None


class EncodedCell(NamedTuple):
    """CLS [D], genes [N, D], and the heads that were asked for."""

    cls_D: Tensor
    gene_ND: Tensor
    scores: list[HeadScores]


class CellEncoder(nn.Module):
    """CLS + N gene tokens through pre-norm layers and a last LayerNorm; see ``TransformerLayer``.

    Args:
        layers: The layers, first to last; none gives the normalised tokens.
        features: Width D of a token.
        gradient_checkpointing: Compute each layer again in the backward pass and keep only its input.

    Shapes:
        x_ND [N, D] -> CLS [D] and genes [N, D].
    """

    def __init__(self, layers: Sequence[TransformerLayer], features: int, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(features))  # a vector, which weight decay leaves alone
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(features)
        self.gradient_checkpointing = gradient_checkpointing

    def forward(
        self,
        x_ND: Float[Tensor, "N D"],
        shown: Sequence[tuple[int, int]] = (),
        summed: Sequence[tuple[int, int]] = (),
    ) -> EncodedCell:
        """Encode the wild type.

        Args:
            x_ND: A token a gene [N, D].
            shown: (layer, head) pairs whose queries and keys are returned.
            summed: Those of them whose log-sum-exp is returned too.
        """
        x_TD, found = torch.cat([self.cls[None].to(x_ND.dtype), x_ND]), {}
        for number, layer in enumerate(self.layers):
            heads = [head for at, head in shown if at == number]
            lse_heads = [head for at, head in summed if at == number]
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x_TD, q_KTd, k_KTd, lse_JT = checkpoint(layer, x_TD, heads, lse_heads, use_reentrant=False)
            else:
                x_TD, q_KTd, k_KTd, lse_JT = layer(x_TD, heads, lse_heads)
            for place, head in enumerate(heads):
                lse_T = lse_JT[lse_heads.index(head)] if head in lse_heads else None
                found[number, head] = HeadScores(q_KTd[place], k_KTd[place], lse_T)
        x_TD = self.norm(x_TD)
        return EncodedCell(x_TD[0], x_TD[1:], [found[place] for place in shown])
