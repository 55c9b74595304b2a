"""A pre-norm transformer layer whose heads can show their queries and keys, or be confined to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.nn.attention import attention
from torchcell.nn.masked_attention import HardMask


class TransformerLayer(nn.Module):
    r"""Self-attention and a two-layer network, each on normalised input and added to it (pre-norm).

    .. math::
        x' = x + W_O \, \mathrm{attention}(\mathrm{LayerNorm}(x)), \quad
        y = x' + W_2 \, \mathrm{GELU}(W_1 \mathrm{LayerNorm}(x'))

    There are no positions: tokens are a set.

    Args:
        features: Width D of a token.
        heads: Attention heads; D / heads must be at least 16, which fused kernels ask for.
        expansion: Width of the inner network in units of D.
        dropout: Share of both additions dropped in training.
        masks: Head -> the network that confines it.

    Shapes:
        x_TD [T, D] -> [T, D].

    Raises:
        InputError: Heads that don't divide the width, or are narrower than 16.

    Source: Xiong et al., ICML 2020, arXiv:2002.04745 (pre-norm).
    """

    def __init__(
        self,
        features: int,
        heads: int,
        expansion: int = 2,
        dropout: float = 0.0,
        masks: Mapping[int, HardMask] | None = None,
    ) -> None:
        super().__init__()
        if features % heads or features // heads < 16:
            raise InputError(
                f"a layer of width {features} with {heads} heads: each head needs the same width, at least 16; "
                "change the width or the number of heads"
            )
        self.features, self.heads = features, heads
        self.attention_norm, self.network_norm = nn.LayerNorm(features), nn.LayerNorm(features)
        self.query_key_value = nn.Linear(features, 3 * features, bias=False)  # a key's bias would do nothing
        self.output = nn.Linear(features, features)
        self.network = nn.Sequential(
            nn.Linear(features, expansion * features), nn.GELU(), nn.Linear(expansion * features, features)
        )
        self.dropout = nn.Dropout(dropout)
        self.masks = nn.ModuleDict({str(head): mask for head, mask in (masks or {}).items()})

    def forward(
        self, x_TD: Float[Tensor, "T D"], shown: Sequence[int] = (), summed: Sequence[int] = ()
    ) -> tuple[Float[Tensor, "T D"], Float[Tensor, "K T d"], Float[Tensor, "K T d"], Float[Tensor, "J T"]]:
        """The new tokens, and what graph terms read.

        Args:
            x_TD: Tokens [T, D].
            shown: K heads whose queries and keys are returned.
            summed: J heads whose log-sum-exp of the scores is returned; none of them masked.

        Returns:
            Tokens [T, D], queries and keys [K, T, D / heads], log-sum-exp [J, T], in the orders asked for.
        """
        qkv_TF = self.query_key_value(self.attention_norm(x_TD))
        q_HTd, k_HTd, v_HTd = qkv_TF.view(len(x_TD), 3, self.heads, -1).permute(1, 2, 0, 3)
        if self.masks:
            y_HTd, lse_JT = self._masked(q_HTd, k_HTd, v_HTd, summed)
        else:
            y_HTd, lse_JT = attention(q_HTd, k_HTd, v_HTd, summed)
        x_TD = x_TD + self.dropout(self.output(y_HTd.transpose(0, 1).reshape(len(x_TD), self.features)))
        x_TD = x_TD + self.dropout(self.network(self.network_norm(x_TD)))
        return x_TD, q_HTd[list(shown)], k_HTd[list(shown)], lse_JT

    def _masked(self, q_HTd: Tensor, k_HTd: Tensor, v_HTd: Tensor, summed: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Free heads together, and each confined head alone."""
        free = [head for head in range(self.heads) if str(head) not in self.masks]
        rows = [torch.empty(0)] * self.heads
        lse_JT = q_HTd.new_empty(0, q_HTd.shape[1])
        if free:
            seen, lse_JT = attention(q_HTd[free], k_HTd[free], v_HTd[free], [free.index(head) for head in summed])
            for number, head in enumerate(free):
                rows[head] = seen[number]
        for name, mask in self.masks.items():
            head = int(name)
            rows[head] = mask(q_HTd[head], k_HTd[head], v_HTd[head])
        return torch.stack(rows), lse_JT

    def extra_repr(self) -> str:
        """Width and heads."""
        return f"{self.features}, heads={self.heads}"
