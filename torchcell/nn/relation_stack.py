"""``RelationStack``: the relations of a cell over all its nodes, ready for products and for their columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.graph.cell_graph import CSR, CellGraph
from torchcell.graph.ranges import expand
from torchcell.nn.spmm import multiply

SMALLEST = 1e-12
"""Sum of weights below which a mean over neighbours is no longer divided."""


class Columns(NamedTuple):
    """Columns of all relations as CSR by column: row (r, c) holds the targets of the edges that leave c by r."""

    csr: CSR
    n_targets: int


class RelationStack(nn.Module):
    r"""R relations as square matrices A_r over all M nodes of a cell, each with its transpose.

    Buffers on the device, not part of a ``state_dict``; a graph of genes only lends its own.

    Args:
        graph: The cell; nodes of all types are numbered through, genes first.
        relations: Which of its relations, in this order.
        mean: Divide each row by the sum of its absolute weights, so that a product is a mean over the neighbours
            in the wild type. A node without neighbours keeps its row of zeros.
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
        """The same by gathers, for a device that SciPy doesn't know."""
        parts, ends, last = [], [node.new_zeros(1)], node.new_zeros(())
        for number in range(len(self)):
            edge, size, _ = out_edges(self.csr(number, True), node)
            csr = self.csr(number, True)
            parts.append((csr.indices[edge], csr.weight[edge]))
            ends.append(last + size.cumsum(0))
            last = ends[-1][-1] if len(node) else last
        indices, weight = (torch.cat(each) for each in zip(*parts, strict=True))
        return Columns(CSR(torch.cat(ends).int(), indices, weight), self.n_nodes)

    def edges_within(self, inside_N: Bool[Tensor, " N"]) -> int:
        """Directed edges with both ends among the nodes that ``inside_N`` [M] marks."""
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
        transpose: A^T, whose row j holds the targets of j.
        node: [C].

    Returns:
        Positions in ``transpose.indices`` [E], edges a node [C], and the entry of ``node`` an edge belongs to [E].
    """
    start = transpose.indptr[node].long()
    size = transpose.indptr[node + 1].long() - start
    edge, whose = expand(start, size)
    return edge, size, whose


def reversed_csr(csr: CSR, n_columns: int, by_sorting: bool = False) -> CSR:
    """The transpose of a CSR matrix of ``n_columns`` columns, sorted; by SciPy on a CPU, unless by sorting."""
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
    """Rows and columns of one node type each, moved to where they stand among all nodes."""
    before, after = csr.indptr.new_zeros(rows.start), csr.indptr[-1:].expand(n_nodes - rows.stop)
    return CSR(torch.cat([before, csr.indptr, after]), csr.indices + columns.start, csr.weight)
