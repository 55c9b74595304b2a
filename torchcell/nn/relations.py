"""Products with the matrices of all networks of a cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcell.graph.cell_graph import CSR, CellGraph, expand
from torchcell.io.errors import InputError
from torchcell.nn.sparse import full_precision, multiply

SMALLEST = 1e-12
"""Smallest sum of weights that a mean over neighbors is divided by."""


class Columns(NamedTuple):
    """Columns of all relations as CSR by column: row (r, c) has the targets of the edges that leave c in r."""

    csr: CSR
    n_targets: int


class RelationStack(nn.Module):
    r"""R relations as square matrices A_r over all M nodes of a cell, each with its transpose.

    They are buffers on the device and not part of a ``state_dict``; those of a graph of genes are shared with it.

    Args:
        graph: The cell; nodes of all types have one numbering, genes first.
        relations: Relations to use, in this order.
        mean: Whether to divide each row by the sum of its absolute weights, so that a product is a mean over the
            neighbors in the wild type. A node without neighbors keeps its row of zeros.
    """

    def __init__(self, graph: CellGraph, relations: Sequence[str], mean: bool = False) -> None:
        super().__init__()
        self.relations, self.n_nodes, self.mean = tuple(relations), graph.n_nodes, mean
        if not relations:
            raise InputError("choose at least one relation of the graph")
        degrees = []
        for number, relation in enumerate(self.relations):
            forward, backward = _unified(graph, relation)
            degrees.append(torch.segment_reduce(forward.weight.abs(), "sum", offsets=forward.indptr, axis=0))
            if mean:
                inverse = 1 / degrees[-1].clamp(min=SMALLEST)
                forward = forward._replace(weight=forward.weight * inverse.repeat_interleave(forward.indptr.diff()))
                backward = backward._replace(weight=backward.weight * inverse[backward.indices])
            for name, csr in ((f"a{number}", forward), (f"t{number}", backward)):
                for part, tensor in zip(CSR._fields, csr, strict=True):
                    self.register_buffer(f"{name}_{part}", tensor, persistent=False)
        self.inverse_degree: Tensor
        self.register_buffer("inverse_degree", 1 / torch.stack(degrees).clamp(min=SMALLEST), persistent=False)
        self._stacked: sp.csr_matrix | None = None

    def __len__(self) -> int:
        return len(self.relations)

    def csr(self, number: int, transpose: bool = False) -> CSR:
        """A_r, or its transpose, [M, M]."""
        name = f"{'t' if transpose else 'a'}{number}"
        return CSR(*(getattr(self, f"{name}_{part}") for part in CSR._fields))

    @property
    def n_edges(self) -> int:
        """Directed edges of all relations."""
        return sum(len(self.csr(number).indices) for number in range(len(self)))

    def columns(self, node: Int[Tensor, " C"]) -> Columns:
        """Columns ``node`` [C] of all relations: CSR of shape [R * C, M], r before c.

        On a CPU SciPy slices the rows of the transposes.
        """
        if node.device.type != "cpu":
            return self._gathered(node)
        if self._stacked is None:
            self._stacked = sp.vstack([_scipy(self.csr(r, True), self.n_nodes) for r in range(len(self))], "csr")
        rows = (np.arange(len(self))[:, None] * self.n_nodes + node.numpy()).ravel()
        return Columns(_torch(self._stacked[rows]), self.n_nodes)

    def _gathered(self, node: Int[Tensor, " C"]) -> Columns:
        """The same by gathering, for devices other than a CPU."""
        parts, ends, last = [], [node.new_zeros(1)], node.new_zeros(())
        for number in range(len(self)):
            edge, size, _ = out_edges(self.csr(number, True), node)
            csr = self.csr(number, True)
            parts.append((csr.indices[edge], csr.weight[edge]))
            ends.append(last + size.cumsum(0))
            last = ends[-1][-1] if len(node) else last
        indices, weight = (torch.cat(part) for part in zip(*parts, strict=True))
        return Columns(CSR(torch.cat(ends).int(), indices, weight), self.n_nodes)

    def edges_within(self, inside_N: Bool[Tensor, " N"]) -> int:
        """Number of directed edges with both ends among the nodes that ``inside_N`` [M] marks."""
        total = 0
        for number in range(len(self)):
            csr = self.csr(number)
            rows = torch.repeat_interleave(inside_N, csr.indptr.diff(), output_size=len(csr.indices))
            total += int((rows & inside_N[csr.indices]).sum())
        return total

    def degree(self, keep_N: Float[Tensor, " N"]) -> Float[Tensor, "R N"]:
        """Sum of the absolute weights of the edges into each node from the nodes that ``keep_N`` [M] marks with 1."""
        return torch.stack([multiply(self._absolute(r), keep_N[:, None])[:, 0] for r in range(len(self))])

    def _absolute(self, number: int) -> CSR:
        csr = self.csr(number)
        return csr._replace(weight=csr.weight.abs())

    def extra_repr(self) -> str:
        """Relations, nodes and edges."""
        return f"{', '.join(self.relations)}; {self.n_nodes:,} nodes, {self.n_edges:,} edges, mean={self.mean}"


def out_edges(
    transpose: CSR, node: Int[Tensor, " C"]
) -> tuple[Int[Tensor, " E"], Int[Tensor, " C"], Int[Tensor, " E"]]:
    """Positions of the edges that leave each node of a list.

    Args:
        transpose: A^T, whose row j has the targets of j.
        node: The nodes [C].

    Returns:
        Positions in ``transpose.indices`` [E], number of edges of each node [C], and position in ``node`` of each
        edge [E].
    """
    start = transpose.indptr[node].long()
    size = transpose.indptr[node + 1].long() - start
    edge, position = expand(start, size)
    return edge, size, position


def reversed_csr(csr: CSR, n_columns: int, by_sorting: bool = False) -> CSR:
    """The transpose of a CSR matrix of ``n_columns`` columns, sorted; by SciPy on a CPU unless ``by_sorting``."""
    if csr.indices.device.type == "cpu" and not by_sorting:
        return _torch(_scipy(csr, n_columns).T.tocsr())
    order = csr.indices.argsort(stable=True)
    rows = len(csr.indptr) - 1
    row = torch.repeat_interleave(torch.arange(rows, device=order.device), csr.indptr.diff(), output_size=len(order))
    count = torch.bincount(csr.indices, minlength=n_columns)
    indptr = torch.cat([count.new_zeros(1), count.cumsum(0)]).int()
    return CSR(indptr, row[order].int(), csr.weight[order])


def _scipy(csr: CSR, n_columns: int) -> sp.csr_matrix:
    indptr, indices, weight = (part.detach().numpy() for part in csr)
    return sp.csr_matrix((weight, indices, indptr), shape=(len(indptr) - 1, n_columns))


def _torch(matrix: sp.csr_matrix) -> CSR:
    return CSR(*(torch.from_numpy(part) for part in (_int32(matrix.indptr), _int32(matrix.indices), matrix.data)))


def _int32(index: np.ndarray) -> np.ndarray:
    return index.astype(np.int32, copy=False)


def _unified(graph: CellGraph, relation: str) -> tuple[CSR, CSR]:
    """A relation and its transpose over the numbering of all nodes."""
    forward, backward = graph.csr(relation), graph.csr(relation, transpose=True)
    source, target = graph.ends(relation)
    if graph.node_types == ("gene",):
        return forward, backward
    spans = graph.span(source), graph.span(target)
    return _widen(forward, graph.n_nodes, spans[0], spans[1]), _widen(backward, graph.n_nodes, spans[1], spans[0])


def _widen(csr: CSR, n_nodes: int, columns: slice, rows: slice) -> CSR:
    """A matrix over one node type for rows and one for columns, as one over all nodes."""
    before, after = csr.indptr.new_zeros(rows.start), csr.indptr[-1:].expand(n_nodes - rows.stop)
    return CSR(torch.cat([before, csr.indptr, after]), csr.indices + columns.start, csr.weight)


Pairs = Sequence[tuple[CSR, CSR]]
"""A_r and its transpose for each relation."""


@dataclass(frozen=True, eq=False)
class Cell:
    """The cell as input of a layer, whole or with nodes missing.

    Attributes:
        pairs: A_r and A_r^T for each relation.
        type_N: Type of each node, int64 [N].
        keep_N: 1 for nodes that are there, 0 for missing ones [N]; none: all are there.
        scale_RN: Factor on each relation's messages to each node [R, N], such as one over its true degree; or none.
    """

    pairs: Pairs
    type_N: Tensor
    keep_N: Tensor | None = None
    scale_RN: Tensor | None = None


def relational_product(
    pairs: Pairs, x_ND: Float[Tensor, "N D"], weight_RDK: Float[Tensor, "R D K"] | None, fused: bool
) -> Tensor:
    r"""The messages that reach each node: :math:`Y_r = A_r X W_r`, or their sum over r.

    The backward pass keeps only X: :math:`G_r = A_r^T g`, :math:`dW_r = X^T G_r`, :math:`dX = \sum_r G_r W_r^T`.

    Args:
        pairs: A_r and A_r^T.
        x_ND: A row for each node [N, D].
        weight_RDK: W_r [R, D, K]; none: the identity.
        fused: Whether to sum over the relations.

    Returns:
        [N, K] if fused, else [R, N, K].
    """
    return _Whole.apply(full_precision(x_ND), _full(weight_RDK), pairs, fused)


def column_product(
    columns: Callable[[], Columns],
    x_CD: Float[Tensor, "C D"],
    weight_RDK: Float[Tensor, "R D K"] | None,
    n_relations: int,
    fused: bool,
) -> Tensor:
    r"""The messages of C nodes only: :math:`Y_r = A_r[:, C] X_C W_r`, or their sum over r.

    Args:
        columns: Returns the columns; called once forward and once backward, since slicing again is cheaper than keeping
            them.
        x_CD: A row for each of the nodes [C, D].
        weight_RDK: W_r [R, D, K]; none: the identity.
        n_relations: Number of relations R.
        fused: Whether to sum over the relations.

    Returns:
        [M, K] if fused, else [R, M, K], M the number of targets.
    """
    return _Columns.apply(full_precision(x_CD), _full(weight_RDK), columns, n_relations, fused)


def _full(weight_RDK: Tensor | None) -> Tensor | None:
    return None if weight_RDK is None else full_precision(weight_RDK)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_ND, weight_RDK, pairs, fused):
        ctx.save_for_backward(x_ND, weight_RDK)
        ctx.pairs, ctx.fused = pairs, fused
        with torch.autocast(x_ND.device.type, enabled=False):
            parts: list[Tensor] = []
            for number, (forward, _) in enumerate(pairs):
                part = multiply(forward, x_ND if weight_RDK is None else x_ND @ weight_RDK[number])
                if fused and parts:
                    parts[0] += part
                else:
                    parts.append(part)
            return parts[0] if fused else torch.stack(parts)

    @staticmethod
    def backward(ctx, grad):
        x_ND, weight_RDK = ctx.saved_tensors
        grad_x = torch.zeros_like(x_ND)
        grad_weight = None if weight_RDK is None else torch.empty_like(weight_RDK)
        with torch.autocast(x_ND.device.type, enabled=False):
            for number, (_, transpose) in enumerate(ctx.pairs):
                sent_NK = multiply(transpose, (grad if ctx.fused else grad[number]).contiguous())
                if grad_weight is None:
                    grad_x += sent_NK
                else:
                    torch.mm(x_ND.T, sent_NK, out=grad_weight[number])
                    grad_x.addmm_(sent_NK, weight_RDK[number].T)
        return grad_x, grad_weight, None, None


class _Columns(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_CD, weight_RDK, columns, n_relations, fused):
        ctx.save_for_backward(x_CD, weight_RDK)
        ctx.columns, ctx.n_relations, ctx.fused = columns, n_relations, fused
        csr, n_targets = columns()
        with torch.autocast(x_CD.device.type, enabled=False):
            message_RCK = x_CD.expand(n_relations, *x_CD.shape) if weight_RDK is None else x_CD @ weight_RDK
            if fused:
                return multiply(reversed_csr(csr, n_targets), message_RCK.flatten(0, 1))
            parts = [
                multiply(reversed_csr(rows, n_targets), message_CK)
                for rows, message_CK in zip(_by_relation(csr, n_relations), message_RCK, strict=True)
            ]
            return torch.stack(parts)

    @staticmethod
    def backward(ctx, grad):
        x_CD, weight_RDK = ctx.saved_tensors
        csr, _ = ctx.columns()
        with torch.autocast(x_CD.device.type, enabled=False):
            if ctx.fused:
                sent_RCK = multiply(csr, grad.contiguous()).unflatten(0, (ctx.n_relations, len(x_CD)))
            else:
                rows = _by_relation(csr, ctx.n_relations)
                sent_RCK = torch.stack([multiply(r, g.contiguous()) for r, g in zip(rows, grad, strict=True)])
            if weight_RDK is None:
                return sent_RCK.sum(0), None, None, None, None
            grad_x = (sent_RCK @ weight_RDK.transpose(1, 2)).sum(0)
            return grad_x, x_CD.T @ sent_RCK, None, None, None


def _by_relation(csr: CSR, n_relations: int) -> list[CSR]:
    """The rows (r, c) of each relation r as one matrix a relation."""
    size = (len(csr.indptr) - 1) // n_relations
    parts = []
    for number in range(n_relations):
        indptr = csr.indptr[number * size : (number + 1) * size + 1]
        first, last = int(indptr[0]), int(indptr[-1])
        parts.append(CSR(indptr - indptr[0], csr.indices[first:last], csr.weight[first:last]))
    return parts
