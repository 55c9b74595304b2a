"""Attention of sets of tokens, over all tokens or over lists of neighbours; in neither case T x T."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from torchcell.data.errors import InputError
from torchcell.graph.cell_graph import CSR
from torchcell.nn.edge_softmax import edge_softmax


def neighbour_attention(
    q_CHTD: Float[Tensor, "C H T D"],
    k_CHTD: Float[Tensor, "C H T D"],
    v_CHTD: Float[Tensor, "C H T D"],
    seen: CSR,
) -> Float[Tensor, "C H T D"]:
    r"""Each gene attends to the tokens of its list, each global token to all.

    .. math::
        y_i = \sum_{j \in A(i)} \alpha_{ij} v_j, \quad \alpha_{ij} \propto \exp(q_i \cdot k_j / \sqrt{D})

    Scores exist for the listed pairs only, and the backward pass computes them again, so memory is linear in the
    genes. All C cells share the lists.

    Args:
        q_CHTD: Queries [C, H, T, D], T = P global tokens and then A genes.
        k_CHTD: Keys likewise.
        v_CHTD: Values likewise.
        seen: Row i: the tokens that gene i sees, see ``seen_tokens``.

    Returns:
        [C, H, T, D].
    """
    n_cells, n_heads, n_tokens = q_CHTD.shape[:3]
    n_global = n_tokens - (len(seen.indptr) - 1)
    heads_first = (x.flatten(0, 1).transpose(0, 1) for x in (q_CHTD[:, :, n_global:], k_CHTD, v_CHTD))
    q_AXD, k_TXD, v_TXD = heads_first
    gene_AXD = edge_softmax([seen], q_AXD, k_TXD[None], v_TXD[None]).to(v_CHTD.dtype)
    gene_CHAD = gene_AXD.transpose(0, 1).unflatten(0, (n_cells, n_heads))
    global_CHPD = scaled_dot_product_attention(q_CHTD[:, :, :n_global], k_CHTD, v_CHTD)
    return torch.cat([global_CHPD.to(v_CHTD.dtype), gene_CHAD], 2)


class TokenAttention(nn.Module):
    r"""Multi-head attention within each cell's tokens.

    Full and sparse have the same weights: without lists every token sees every token, by torch's fused kernel.

    Args:
        features: Width D of a token.
        heads: D / heads must be at least 16, which fused kernels ask for.

    Shapes:
        x_CTD [C, T, D] -> [C, T, D].

    Raises:
        InputError: Heads that don't divide the width, or are narrower than 16.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        refuse_narrow(features, heads)
        self.features, self.heads = features, heads
        self.query_key_value = nn.Linear(features, 3 * features, bias=False)  # a key's bias would do nothing
        self.output = nn.Linear(features, features)

    def forward(self, x_CTD: Float[Tensor, "C T D"], seen: CSR | None = None) -> Float[Tensor, "C T D"]:
        """One row a token; ``seen`` says what each gene looks at, none: everything."""
        qkv = self.query_key_value(x_CTD).unflatten(-1, (3, self.heads, -1))
        q_CHTd, k_CHTd, v_CHTd = qkv.permute(2, 0, 3, 1, 4)
        if seen is None:
            y_CHTd = scaled_dot_product_attention(q_CHTd, k_CHTd, v_CHTd)
        else:
            y_CHTd = neighbour_attention(q_CHTd, k_CHTd, v_CHTd, seen)
        return self.output(y_CHTd.transpose(1, 2).flatten(2))

    def extra_repr(self) -> str:
        """Width and heads."""
        return f"{self.features}, heads={self.heads}"


def refuse_narrow(features: int, heads: int) -> None:
    """Raise unless each head has the same width of at least 16."""
    if heads < 1 or features % heads or features // heads < 16:
        raise InputError(
            f"attention of width {features} with {heads} heads: each head needs the same width, at least 16; "
            "change the width or the number of heads"
        )
