"""Sparse products and softmax over edges, with gradients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor

from torchcell.graph.cell_graph import CSR, CellGraph


class Block(NamedTuple):
    """The edges of a relation, and the positions of its sources and targets among all nodes.

    Attributes:
        csr: Row i has the sources of the edges into target i, both counted from the starts of the slices.
        source: Rows of keys and values that are the columns of ``csr``.
        target: Rows of queries that are the rows of ``csr``.
    """

    csr: CSR
    source: slice
    target: slice


class Gathered:
    """Operations on the edges into some rows, by gathering the vectors at both ends of each edge; on any device.

    Args:
        indptr: Row i has edges ``indptr[i]`` to ``indptr[i + 1]``, counted from 0, [n + 1].
        source_E: Column of each edge [E].
        n_columns: Number of columns M.
    """

    edges = 65_536
    """Edges in one chunk."""

    def __init__(self, indptr: Tensor, source_E: Tensor, n_columns: int) -> None:
        self.indptr, self.source_E, self.n_columns, self.n_rows = indptr, source_E, n_columns, len(indptr) - 1

    @cached_property
    def row_E(self) -> Tensor:
        """Row of each edge [E]."""
        rows = torch.arange(self.n_rows, device=self.indptr.device)
        return torch.repeat_interleave(rows, self.indptr.diff(), output_size=len(self.source_E))

    def spread(self, x_Hn: Tensor) -> Tensor:
        """Each row's number at its edges [H, E]."""
        return x_Hn.index_select(1, self.row_E)

    def dots(self, x_HnD: Tensor, y_HMD: Tensor) -> Tensor:
        """Inner product of row and column at each edge [H, E]."""
        return (x_HnD.index_select(1, self.row_E) * y_HMD.index_select(1, self.source_E)).sum(-1)

    def largest(self, x_HE: Tensor) -> Tensor:
        """Largest number of each row [H, n]; minus infinity for a row without edges."""
        out_Hn = x_HE.new_full((len(x_HE), self.n_rows), -torch.inf)
        return out_Hn.scatter_reduce(1, self.row_E.expand_as(x_HE), x_HE, "amax")

    def total(self, x_HE: Tensor) -> Tensor:
        """Sum of each row [H, n]."""
        return x_HE.new_zeros(len(x_HE), self.n_rows).index_add(1, self.row_E, x_HE)

    def collect(self, x_HE: Tensor, y_HMD: Tensor) -> Tensor:
        """Sum over the edges of each row of number times column's vector [H, n, D]."""
        out_HnD = y_HMD.new_zeros(len(y_HMD), self.n_rows, y_HMD.shape[2])
        return out_HnD.index_add(1, self.row_E, x_HE[:, :, None] * y_HMD.index_select(1, self.source_E))

    def deliver(self, x_HE: Tensor, y_HnD: Tensor, out_HMD: Tensor) -> None:
        """Add to each column, over its edges, number times row's vector."""
        out_HMD.index_add_(1, self.source_E, x_HE[:, :, None] * y_HnD.index_select(1, self.row_E))


class Sparse(Gathered):
    """The same by sparse matrix products for each head, and NumPy reductions of sorted runs; on a CPU."""

    edges = 262_144

    @cached_property
    def _filled(self) -> np.ndarray:
        """Rows with edges: ``reduceat`` is undefined for the others."""
        return np.flatnonzero(np.diff(self.indptr.numpy()))

    def _matrix(self, x_E: Tensor) -> Tensor:
        size = (self.n_rows, self.n_columns)
        return torch.sparse_csr_tensor(self.indptr, self.source_E, x_E, size=size, check_invariants=False)

    def _reduced(self, ufunc: np.ufunc, x_HE: Tensor, empty: float) -> Tensor:
        out_Hn = x_HE.new_full((len(x_HE), self.n_rows), empty)
        starts = self.indptr.numpy()[self._filled]
        for out_n, x_E in zip(out_Hn.numpy(), x_HE.numpy(), strict=True):
            out_n[self._filled] = ufunc.reduceat(x_E, starts)
        return out_Hn

    def dots(self, x_HnD: Tensor, y_HMD: Tensor) -> Tensor:
        """Inner product of row and column at each edge [H, E]."""
        pattern = self._matrix(x_HnD.new_zeros(len(self.source_E)))
        out_HE = x_HnD.new_empty(len(x_HnD), len(self.source_E))
        for out_E, x_nD, y_MD in zip(out_HE, x_HnD, y_HMD, strict=True):
            out_E.copy_(torch.sparse.sampled_addmm(pattern, x_nD, y_MD.T, beta=0.0).values())
        return out_HE

    def spread(self, x_Hn: Tensor) -> Tensor:
        """Each row's number at its edges [H, E]."""
        return torch.from_numpy(np.repeat(x_Hn.numpy(), np.diff(self.indptr.numpy()), axis=1))

    def largest(self, x_HE: Tensor) -> Tensor:
        """Largest number of each row [H, n]; minus infinity for a row without edges."""
        return self._reduced(np.maximum, x_HE, -np.inf)

    def total(self, x_HE: Tensor) -> Tensor:
        """Sum of each row [H, n]."""
        return self._reduced(np.add, x_HE, 0.0)

    def collect(self, x_HE: Tensor, y_HMD: Tensor) -> Tensor:
        """Sum over the edges of each row of number times column's vector [H, n, D]."""
        return torch.stack([self._matrix(x_E) @ y_MD for x_E, y_MD in zip(x_HE, y_HMD, strict=True)])

    def deliver(self, x_HE: Tensor, y_HnD: Tensor, out_HMD: Tensor) -> None:
        """Add to each column, over its edges, number times row's vector."""
        indices, indptr, size = self.source_E.numpy(), self.indptr.numpy(), (self.n_columns, self.n_rows)
        for x_E, y_nD, out_MD in zip(x_HE, y_HnD, out_HMD, strict=True):
            # The arrays of a CSR matrix are its transpose as CSC; torch would convert it first.
            transpose = sp.csc_matrix((x_E.numpy(), indices, indptr), shape=size)
            out_MD += torch.from_numpy(transpose @ y_nD.numpy())


STRATEGIES: dict[str, type[Gathered]] = {"sparse": Sparse, "gather": Gathered}


# torch warns that its CSR support is in beta; tests compare it with the dense product.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


class _SpMM(torch.autograd.Function):
    """A @ X; the gradient is A^T @ g from the stored transpose, so that no array of size E x d is made."""

    @staticmethod
    def forward(ctx, x_ND, forward_csr, backward_csr):
        ctx.backward_csr = backward_csr
        return multiply(forward_csr, x_ND)

    @staticmethod
    def backward(ctx, grad_ND):
        return multiply(ctx.backward_csr, grad_ND.contiguous()), None, None


def multiply(csr: CSR, x_ND: Tensor) -> Tensor:
    """A @ X without a gradient; rows of A may be fewer or more than its columns, which are the rows of X."""
    n = len(csr.indptr) - 1
    weight = csr.weight.to(x_ND.dtype)
    # The graph has checked its indices; a check at each step would cost more than the product.
    matrix = torch.sparse_csr_tensor(csr.indptr, csr.indices, weight, size=(n, x_ND.shape[0]), check_invariants=False)
    with torch.autocast(x_ND.device.type, enabled=False):  # autocast would cast the inputs to half precision
        return matrix @ x_ND


def spmm(graph: CellGraph, relation: str, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "T D"]:
    """Sum over the edges into each node: y_i = sum_j A_ij x_j.

    Args:
        graph: Graph with A and its transpose.
        relation: Name of the relation of A.
        x_ND: A row for each node of the source type [N, D].

    Returns:
        A row for each node of the target type [T, D]; both types are genes in most relations. Isolated nodes get zeros.
    """
    product_TD = _SpMM.apply(full_precision(x_ND), graph.csr(relation), graph.csr(relation, transpose=True))
    return product_TD.to(x_ND.dtype)


def full_precision(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half precision as float32, since torch has no sparse product in half precision on a CPU."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


CHUNK: int | None = None
"""Edges of a relation in one chunk; none: the default of the strategy."""


def edge_softmax(
    relations: Sequence[CSR],
    query_NHD: Float[Tensor, "N H D"],
    key_RMHD: Float[Tensor, "R M H D"],
    value_RMHD: Float[Tensor, "R M H D"],
    keep_M: Float[Tensor, " M"] | None = None,
    strategy: str | None = None,
) -> Float[Tensor, "N H D"]:
    r"""One softmax for each target and head over the edges of all relations into the target.

    .. math::
        y_i = \sum_{r, j} \alpha_{rij} v_{rj}, \quad
        \alpha_{rij} \propto |A_r[i, j]| \exp(q_i \cdot k_{rj} / \sqrt{D})

    An edge of weight w counts |w| times. The backward pass keeps q, k, v, y and the log-sum-exp, and computes
    the scores again.

    Args:
        relations: A_r [N, M]; row i has the sources of the edges into target i.
        query_NHD: A row for each target [N, H, D].
        key_RMHD: Keys of the sources for each relation [R, M, H, D].
        value_RMHD: Values of the sources for each relation [R, M, H, D].
        keep_M: 0 for missing sources [M]: their edges are left out of the softmax.
        strategy: ``sparse`` (CPU only) or ``gather``; none: by the device.

    Returns:
        [N, H, D]; zeros for a target without edges.
    """
    n_targets, n_sources = len(query_NHD), key_RMHD.shape[1]
    blocks = [
        Block(csr, slice(r * n_sources, (r + 1) * n_sources), slice(0, n_targets)) for r, csr in enumerate(relations)
    ]
    keep = None if keep_M is None else keep_M.repeat(len(relations))
    return block_softmax(
        blocks, query_NHD, key_RMHD.flatten(0, 1), value_RMHD.flatten(0, 1), None, None, keep, strategy
    )


def block_softmax(
    blocks: Sequence[Block],
    query_NHD: Float[Tensor, "N H D"],
    key_MHD: Float[Tensor, "M H D"],
    value_MHD: Float[Tensor, "M H D"],
    attend_RHDD: Float[Tensor, "R H D D"] | None = None,
    send_RHDD: Float[Tensor, "R H D D"] | None = None,
    keep_M: Float[Tensor, " M"] | None = None,
    strategy: str | None = None,
) -> Float[Tensor, "N H D"]:
    r"""``edge_softmax`` where each relation joins some of the sources to some of the targets.

    .. math::
        \alpha_{rij} \propto |A_r[i, j]| \exp(q_i \cdot (k_j W^{att}_r) / \sqrt{D}), \quad
        y_i = \sum_{r, j} \alpha_{rij} \, v_j W^{msg}_r

    Mapped keys and values exist for one relation at a time, forward and backward.

    Args:
        blocks: The edges of each relation, and which sources and targets they join.
        query_NHD: A row for each target [N, H, D].
        key_MHD: A row for each source [M, H, D].
        value_MHD: A row for each source [M, H, D].
        attend_RHDD: Map of the keys for each relation [R, H, D, D]; none: the identity.
        send_RHDD: Map of the values for each relation [R, H, D, D]; none: the identity.
        keep_M: 0 for missing sources [M]: their edges are left out of the softmax.
        strategy: ``sparse`` (CPU only) or ``gather``; none: by the device.

    Returns:
        [N, H, D]; zeros for a target without edges.
    """
    rows = (full_precision(x).transpose(0, 1).contiguous() for x in (query_NHD, key_MHD, value_MHD))
    maps = (None if x is None else full_precision(x) for x in (attend_RHDD, send_RHDD))
    operations = STRATEGIES[strategy or ("sparse" if query_NHD.device.type == "cpu" else "gather")]
    return _BlockSoftmax.apply(*rows, *maps, tuple(blocks), keep_M, operations).transpose(0, 1)


class _Chunk(NamedTuple):
    edges: Gathered
    rows: slice
    bias_E: Tensor


def _chunks(block: Block, keep_M: Tensor | None, dtype: torch.dtype, operations: type[Gathered]) -> Iterator[_Chunk]:
    """Edges of a relation in chunks of whole rows and about CHUNK edges; the bias of an edge is its log weight."""
    csr, ends, first = block.csr, block.csr.indptr, 0
    n_rows, n_columns = len(ends) - 1, block.source.stop - block.source.start
    while first < n_rows:
        limit = ends[first] + (CHUNK or operations.edges)
        last = max(first + 1, int(torch.searchsorted(ends, limit, right=True)) - 1)
        last = min(last, n_rows)
        span = slice(int(ends[first]), int(ends[last]))
        if span.start < span.stop:
            edges = operations(ends[first : last + 1] - ends[first], csr.indices[span], n_columns)
            bias_E = csr.weight[span].to(dtype).abs().log()
            if keep_M is not None:
                bias_E = bias_E.masked_fill(keep_M[block.source].index_select(0, edges.source_E) == 0, -torch.inf)
            start = block.target.start
            yield _Chunk(edges, slice(start + first, start + last), bias_E)
        first = last


class _BlockSoftmax(torch.autograd.Function):
    """Tensors have the heads first: [H, N, D], [H, M, D]."""

    @staticmethod
    def forward(ctx, query, key, value, attend, send, blocks, keep_M, operations):
        top = torch.full(query.shape[:2], -torch.inf, dtype=query.dtype, device=query.device)
        total, out, scale = torch.zeros_like(top), torch.zeros_like(query), query.shape[-1] ** -0.5
        with torch.autocast(query.device.type, enabled=False):
            for number, block in enumerate(blocks):
                if not len(block.csr.indices):
                    continue
                keys, values = _mapped(key, attend, block, number), _mapped(value, send, block, number)
                for edges, rows, bias_E in _chunks(block, keep_M, query.dtype, operations):
                    score_HE = edges.dots(query[:, rows], keys).mul_(scale).add_(bias_E)
                    previous = top[:, rows]
                    peak = torch.maximum(previous, edges.largest(score_HE))
                    safe = torch.where(peak == -torch.inf, 0, peak)  # all edges so far come from missing sources
                    part_HE = score_HE.sub_(edges.spread(safe)).exp_()
                    fade = (previous - safe).exp()
                    top[:, rows] = peak
                    total[:, rows] = total[:, rows] * fade + edges.total(part_HE)
                    out[:, rows] = out[:, rows] * fade[:, :, None] + edges.collect(part_HE, values)
        out /= torch.where(total > 0, total, 1)[:, :, None]
        lse = torch.where(total > 0, top + total.log(), torch.inf)  # exp(score - inf) = 0 for a target without edges
        ctx.save_for_backward(query, key, value, attend, send, out, lse)
        ctx.blocks, ctx.keep_M, ctx.operations = blocks, keep_M, operations
        return out

    @staticmethod
    def backward(ctx, grad):
        query, key, value, attend, send, out, lse = ctx.saved_tensors
        grad, scale = grad.contiguous(), query.shape[-1] ** -0.5
        grad_query, grad_key, grad_value = (torch.zeros_like(x) for x in (query, key, value))
        grad_attend, grad_send = (None if x is None else torch.zeros_like(x) for x in (attend, send))
        inner_HN = (grad * out).sum(-1)
        with torch.autocast(query.device.type, enabled=False):
            for number, block in enumerate(ctx.blocks):
                if not len(block.csr.indices):
                    continue
                keys, values = _mapped(key, attend, block, number), _mapped(value, send, block, number)
                grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
                for edges, rows, bias_E in _chunks(block, ctx.keep_M, query.dtype, ctx.operations):
                    share_HE = edges.dots(query[:, rows], keys).mul_(scale).add_(bias_E)
                    share_HE = share_HE.sub_(edges.spread(lse[:, rows])).exp_()
                    edges.deliver(share_HE, grad[:, rows], grad_values)
                    score_HE = edges.dots(grad[:, rows], values).sub_(edges.spread(inner_HN[:, rows]))
                    score_HE.mul_(share_HE).mul_(scale)
                    grad_query[:, rows] += edges.collect(score_HE, keys)
                    edges.deliver(score_HE, query[:, rows], grad_keys)
                _unmap(grad_keys, key, attend, grad_key, grad_attend, block, number)
                _unmap(grad_values, value, send, grad_value, grad_send, block, number)
        return grad_query, grad_key, grad_value, grad_attend, grad_send, None, None, None


def _mapped(x_HMD: Tensor, map_RHDD: Tensor | None, block: Block, number: int) -> Tensor:
    """Rows of a block's sources, multiplied by the map of its relation."""
    rows = x_HMD[:, block.source]
    return rows if map_RHDD is None else rows @ map_RHDD[number]


def _unmap(
    mapped_grad: Tensor,
    x_HMD: Tensor,
    map_RHDD: Tensor | None,
    grad_x: Tensor,
    grad_map: Tensor | None,
    block: Block,
    number: int,
) -> None:
    """Add the gradient of ``_mapped`` to the gradients of its inputs."""
    if map_RHDD is None or grad_map is None:
        grad_x[:, block.source] += mapped_grad
        return
    grad_x[:, block.source] += mapped_grad @ map_RHDD[number].mT
    grad_map[number] = x_HMD[:, block.source].mT @ mapped_grad
