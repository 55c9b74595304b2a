"""Attention of sets of tokens, over all tokens or over lists of neighbours; in neither case T x T."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from torchcell.data.errors import InputError
from torchcell.graph.cell_graph import CSR
from torchcell.nn.edge_products import WAYS, Gathered
from torchcell.nn.spmm import full_precision

NUMBERS = {"sparse": 2**18, "gather": 2**26}
"""Numbers on edges that each way holds at a time; cells are taken so many at once."""


def neighbour_attention(
    qkv_CT3HD: Float[Tensor, "C T 3 H D"], seen: CSR, way: str | None = None
) -> Float[Tensor, "C T H D"]:
    r"""Each gene attends to the tokens of its list, each global token to all.

    .. math::
        y_i = \sum_{j \in A(i)} \alpha_{ij} v_j, \quad \alpha_{ij} \propto \exp(q_i \cdot k_j / \sqrt{D})

    Scores exist for the listed pairs only and for a few cells at a time, and the backward pass, which keeps q, k, v, y
    and the log-sum-exp, computes them again: memory is linear in the genes. All C cells share the lists.

    Args:
        qkv_CT3HD: Queries, keys and values as one projection gives them, T = P global tokens and then A genes.
        seen: Row i: the tokens that gene i sees, at least one, see ``seen_tokens``; weights are not read.
        way: ``sparse`` (CPU only) or ``gather``; none: by the device.

    Returns:
        [C, T, H, D].
    """
    return _NeighbourAttention.apply(
        qkv_CT3HD, seen.indptr, seen.indices, way or ("sparse" if qkv_CT3HD.device.type == "cpu" else "gather")
    )


class _NeighbourAttention(torch.autograd.Function):
    """Within a few cells heads come first: X = cells x heads."""

    @staticmethod
    def forward(ctx, qkv, indptr, indices, way):
        n_cells, n_tokens, _, n_heads, width = qkv.shape
        out, scale = qkv.new_empty(n_cells, n_tokens, n_heads, width), width**-0.5
        lse_CTH = full_precision(out[:0]).new_empty(n_cells, n_tokens, n_heads)
        first = n_tokens - (len(indptr) - 1)
        with torch.autocast(qkv.device.type, enabled=False):
            for cells in _tiles(qkv, indices, way):
                q, k, v = _heads_first(qkv[cells])
                y_XTD, lse_XT = torch.empty_like(q), q.new_empty(q.shape[:2])
                score_XPT = q[:, :first] @ k.mT * scale
                lse_XT[:, :first] = score_XPT.logsumexp(-1)
                y_XTD[:, :first] = score_XPT.softmax(-1) @ v
                for edges, rows in _chunks(indptr, indices, first, n_tokens, WAYS[way]):
                    part_XE = edges.dots(q[:, rows], k).mul_(scale)
                    top_Xn = edges.largest(part_XE)
                    part_XE.sub_(edges.spread(top_Xn)).exp_()
                    total_Xn = edges.total(part_XE)
                    y_XTD[:, rows] = edges.collect(part_XE, v) / total_Xn[:, :, None]
                    lse_XT[:, rows] = top_Xn + total_Xn.log()
                _put(out[cells], y_XTD)
                lse_CTH[cells] = lse_XT.unflatten(0, (-1, n_heads)).transpose(1, 2)
        ctx.save_for_backward(qkv, indptr, indices, out, lse_CTH)
        ctx.way = way
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        qkv, indptr, indices, out, lse_CTH = ctx.saved_tensors
        n_tokens, scale, found = qkv.shape[1], qkv.shape[-1] ** -0.5, torch.empty_like(qkv)
        first = n_tokens - (len(indptr) - 1)
        with torch.autocast(qkv.device.type, enabled=False):
            for cells in _tiles(qkv, indices, ctx.way):
                q, k, v = _heads_first(qkv[cells])
                (g,) = _heads_first(grad[cells][:, :, None])
                inner_XT = (_heads_first(out[cells][:, :, None])[0] * g).sum(-1)
                lse_XT = lse_CTH[cells].transpose(1, 2).flatten(0, 1)
                share_XPT = (q[:, :first] @ k.mT * scale - lse_XT[:, :first, None]).exp()
                score_XPT = (g[:, :first] @ v.mT - inner_XT[:, :first, None]) * share_XPT * scale
                to_q, to_k, to_v = torch.empty_like(q), score_XPT.mT @ q[:, :first], share_XPT.mT @ g[:, :first]
                to_q[:, :first] = score_XPT @ k
                for edges, rows in _chunks(indptr, indices, first, n_tokens, WAYS[ctx.way]):
                    share_XE = edges.dots(q[:, rows], k).mul_(scale).sub_(edges.spread(lse_XT[:, rows])).exp_()
                    edges.deliver(share_XE, g[:, rows], to_v)
                    score_XE = edges.dots(g[:, rows], v).sub_(edges.spread(inner_XT[:, rows]))
                    score_XE.mul_(share_XE).mul_(scale)
                    to_q[:, rows] = edges.collect(score_XE, k)
                    edges.deliver(score_XE, q[:, rows], to_k)
                for place, part in enumerate((to_q, to_k, to_v)):
                    _put(found[cells][:, :, place], part)
        return found, None, None, None


def _tiles(qkv_CT3HD: Tensor, indices: Tensor, way: str) -> Iterator[slice]:
    """Cells that are taken at once: as many as fit, for gathers hold a vector an edge."""
    n_cells, n_heads, width = len(qkv_CT3HD), *qkv_CT3HD.shape[3:]
    each = min(len(indices), WAYS[way].edges) * n_heads * (width if way == "gather" else 1)
    step = max(1, NUMBERS[way] // max(each, 1))
    for start in range(0, n_cells, step):
        yield slice(start, min(start + step, n_cells))


def _chunks(
    indptr: Tensor, indices: Tensor, first: int, n_tokens: int, kind: type[Gathered]
) -> Iterator[tuple[Gathered, slice]]:
    """Edges into whole rows, so many at a time as the way takes, and the tokens that the rows are."""
    row, n_rows = 0, len(indptr) - 1
    while row < n_rows:
        last = int(torch.searchsorted(indptr, indptr[row] + kind.edges, right=True)) - 1
        last = min(max(row + 1, last), n_rows)
        span = slice(int(indptr[row]), int(indptr[last]))
        yield kind(indptr[row : last + 1] - indptr[row], indices[span], n_tokens), slice(first + row, first + last)
        row = last


def _heads_first(x_CTKHD: Tensor) -> Tensor:
    """K times [C x H, T, D], each in a row, at least float32."""
    return full_precision(x_CTKHD.permute(2, 0, 3, 1, 4)).contiguous().flatten(1, 2)


def _put(to_CTHD: Tensor, x_XTD: Tensor) -> None:
    """Write [C x H, T, D] into its place."""
    to_CTHD.copy_(x_XTD.unflatten(0, (len(to_CTHD), -1)).transpose(1, 2))


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
        qkv_CT3Hd = self.query_key_value(x_CTD).unflatten(-1, (3, self.heads, -1))
        if seen is None:
            y_CTHd = scaled_dot_product_attention(*qkv_CT3Hd.permute(2, 0, 3, 1, 4)).transpose(1, 2)
        else:
            y_CTHd = neighbour_attention(qkv_CT3Hd, seen)
        return self.output(y_CTHd.flatten(2))

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
