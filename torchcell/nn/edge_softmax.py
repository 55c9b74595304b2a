"""Attention over the edges of several relations, in chunks and with recomputation: nothing of size E x d is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from torchcell.graph.cell_graph import CSR
from torchcell.nn.spmm import full_precision

CHUNK = 65_536
"""Edges whose vectors are gathered at once."""


def edge_softmax(
    relations: Sequence[CSR],
    query_NHD: Float[Tensor, "N H D"],
    key_RMHD: Float[Tensor, "R M H D"],
    value_RMHD: Float[Tensor, "R M H D"],
    keep_M: Float[Tensor, " M"] | None = None,
) -> Float[Tensor, "N H D"]:
    r"""One softmax a target and head over the edges of all relations into it.

    .. math::
        y_i = \sum_{r, j} \alpha_{rij} v_{rj}, \quad
        \alpha_{rij} \propto |A_r[i, j]| \exp(q_i \cdot k_{rj} / \sqrt{D})

    An edge of weight w counts |w| times. The backward pass keeps q, k, v, y and the log-sum-exp, and computes
    the scores again.

    Args:
        relations: A_r [N, M]; row i holds the sources of the edges into target i.
        query_NHD: One row a target [N, H, D].
        key_RMHD: Sources as each relation sees them [R, M, H, D].
        value_RMHD: What they send [R, M, H, D].
        keep_M: 0 for sources that are missing [M]: the softmax leaves their edges out.

    Returns:
        [N, H, D]; zeros for a target that no edge reaches.
    """
    tensors = (full_precision(each) for each in (query_NHD, key_RMHD, value_RMHD))
    return _EdgeSoftmax.apply(*tensors, tuple(relations), keep_M)


class _Chunk(NamedTuple):
    relation: int
    first: int
    last: int
    source_E: Tensor
    row_E: Tensor
    bias_E: Tensor


def _chunks(relations: Sequence[CSR], keep_M: Tensor | None, dtype: torch.dtype) -> Iterator[_Chunk]:
    """Rows ``first`` to ``last`` of a relation with about CHUNK edges, rows counted from ``first``."""
    for number, csr in enumerate(relations):
        ends, n_rows, first = csr.indptr.long(), len(csr.indptr) - 1, 0
        while first < n_rows:
            limit = ends[first] + CHUNK
            last = max(first + 1, int(torch.searchsorted(ends, limit, right=True)) - 1)
            last = min(last, n_rows)
            span = slice(int(ends[first]), int(ends[last]))
            if span.start < span.stop:
                source_E = csr.indices[span].long()
                rows = torch.arange(last - first, device=source_E.device)
                row_E = torch.repeat_interleave(rows, ends[first : last + 1].diff(), output_size=len(source_E))
                bias_E = csr.weight[span].to(dtype).abs().log()
                if keep_M is not None:
                    bias_E = bias_E.masked_fill(keep_M[source_E] == 0, -torch.inf)
                yield _Chunk(number, first, last, source_E, row_E, bias_E)
            first = last


class _EdgeSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, relations, keep_M):
        top = torch.full(query.shape[:2], -torch.inf, dtype=query.dtype, device=query.device)
        total, out = torch.zeros_like(top), torch.zeros_like(query)
        with torch.autocast(query.device.type, enabled=False):
            for chunk in _chunks(relations, keep_M, query.dtype):
                rows, row_E1 = slice(chunk.first, chunk.last), chunk.row_E[:, None]
                score_EH = _score(query[rows], key[chunk.relation], chunk)
                was = top[rows]
                peak = was.scatter_reduce(0, row_E1.expand_as(score_EH), score_EH, "amax")
                safe = torch.where(peak == -torch.inf, 0, peak)  # all edges so far come from missing sources
                part_EH = (score_EH - safe[chunk.row_E]).exp()
                fade = (was - safe).exp()
                top[rows] = peak
                total[rows] = (total[rows] * fade).index_add(0, chunk.row_E, part_EH)
                message_EHD = part_EH[:, :, None] * value[chunk.relation].index_select(0, chunk.source_E)
                out[rows] = (out[rows] * fade[:, :, None]).index_add(0, chunk.row_E, message_EHD)
        out = out / torch.where(total > 0, total, 1)[:, :, None]
        lse = torch.where(total > 0, top + total.log(), torch.inf)  # exp(score - inf) = 0 where nothing arrives
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.relations, ctx.keep_M = relations, keep_M
        return out

    @staticmethod
    def backward(ctx, grad):
        query, key, value, out, lse = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        grad_query, grad_key, grad_value = (torch.zeros_like(each) for each in (query, key, value))
        inner_NH = (grad * out).sum(-1)
        with torch.autocast(query.device.type, enabled=False):
            for chunk in _chunks(ctx.relations, ctx.keep_M, query.dtype):
                rows, r = slice(chunk.first, chunk.last), chunk.relation
                share_EH = (_score(query[rows], key[r], chunk) - lse[rows][chunk.row_E]).exp()
                grad_EHD = grad[rows].index_select(0, chunk.row_E)
                inner_EH = (grad_EHD * value[r].index_select(0, chunk.source_E)).sum(-1)
                grad_value[r].index_add_(0, chunk.source_E, share_EH[:, :, None] * grad_EHD)
                score_grad = (share_EH * (inner_EH - inner_NH[rows][chunk.row_E]) * scale)[:, :, None]
                grad_query[rows] = grad_query[rows].index_add(
                    0, chunk.row_E, score_grad * key[r].index_select(0, chunk.source_E)
                )
                grad_key[r].index_add_(0, chunk.source_E, score_grad * query[rows].index_select(0, chunk.row_E))
        return grad_query, grad_key, grad_value, None, None


def _score(query_NHD: Tensor, key_MHD: Tensor, chunk: _Chunk) -> Float[Tensor, "E H"]:
    pairs = query_NHD.index_select(0, chunk.row_E) * key_MHD.index_select(0, chunk.source_E)
    return pairs.sum(-1) * query_NHD.shape[-1] ** -0.5 + chunk.bias_E[:, None]
