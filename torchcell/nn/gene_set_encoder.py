"""Layers over the gene tokens of many cells: full, sparse or induced attention, with or without checkpointing."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchcell.data.errors import InputError
from torchcell.graph.cell_graph import CSR
from torchcell.nn.induced_attention import InducedAttention
from torchcell.nn.neighbour_attention import TokenAttention

ATTENTIONS = ("full", "neighbours", "induced")
"""What ``GeneSetEncoder`` can be told to use."""


class GeneSetEncoder(nn.Module):
    r"""Pre-norm layers over sets of tokens, each cell on its own, and a last LayerNorm.

    .. math::
        x' = x + \mathrm{attention}(\mathrm{LayerNorm}(x)), \quad
        y = x' + W_2 \, \mathrm{GELU}(W_1 \mathrm{LayerNorm}(x'))

    Args:
        features: Width D of a token.
        layers: How many.
        heads: Of each layer, D / heads at least 16.
        expansion: Width of the inner network in units of D.
        dropout: Share of both additions dropped in training.
        attention: ``full``, ``neighbours`` or ``induced``; the first two have the same weights.
        points: Of induced attention.
        gradient_checkpointing: Keep only the layers' inputs, and compute them again in the backward pass.

    Shapes:
        x_CTD [C, T, D] -> [C, T, D].
    """

    def __init__(
        self,
        features: int,
        layers: int,
        heads: int,
        expansion: int = 2,
        dropout: float | int = 0.0,
        attention: str = "full",
        points: int = 32,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise InputError(f"model.attention={attention!r}: choose one of {list(ATTENTIONS)}")
        if layers < 0 or expansion < 1:
            raise InputError(f"model.layers={layers} must not be negative, and model.expansion={expansion} at least 1")
        self.gradient_checkpointing = gradient_checkpointing

        def kind() -> nn.Module:
            return (
                InducedAttention(features, heads, points) if attention == "induced" else TokenAttention(features, heads)
            )

        self.layers = nn.ModuleList(_Layer(kind(), features, expansion, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(features)

    def forward(self, x_CTD: Float[Tensor, "C T D"], seen: CSR | None = None) -> Float[Tensor, "C T D"]:
        """Tokens after the last layer; ``seen`` is what each gene looks at where attention is sparse."""
        for layer in self.layers:
            if self.gradient_checkpointing and x_CTD.requires_grad:
                x_CTD = checkpoint(layer, x_CTD, seen, use_reentrant=False)
            else:
                x_CTD = layer(x_CTD, seen)
        return self.norm(x_CTD)


class _Layer(nn.Module):
    def __init__(self, attention: nn.Module, features: int, expansion: int, dropout: float | int) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm, self.network_norm = nn.LayerNorm(features), nn.LayerNorm(features)
        self.network = nn.Sequential(
            nn.Linear(features, expansion * features), nn.GELU(), nn.Linear(expansion * features, features)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_CTD: Tensor, seen: CSR | None) -> Tensor:
        normed = self.attention_norm(x_CTD)
        y_CTD = self.attention(normed) if seen is None else self.attention(normed, seen)
        x_CTD = x_CTD + self.dropout(y_CTD)
        return x_CTD + self.dropout(self.network(self.network_norm(x_CTD)))
