"""``induced``: the sub-graphs on B node sets as relabelled edges, for models that need an edge list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from torchcell.data.errors import InputError, near
from torchcell.graph.cell_graph import CSR, CellGraph
from torchcell.graph.ranges import owner as owner_of

CHUNK_BYTES = 16 * 2**20
"""About the largest sum of temporary tensors; a sample larger than that is a chunk of its own. 64 MB are slower."""
EDGE_BYTES = 48
"""Temporary bytes per edge that is looked at."""


@dataclass(frozen=True, eq=False)
class Subgraph:
    """The edges within each of B node sets; the sets' nodes one after another are rows 0..K-1, one matrix for all.

    Attributes:
        node: Rows' nodes in the graph's unified numbering, sorted within a sample, int64 [K].
        ptr: Sample i has rows ``ptr[i]`` to ``ptr[i + 1]``, int64 [B + 1].
        n_nodes: Nodes of the whole graph.
        matrices: Relation -> block-diagonal CSR [K, K] and its transpose.
    """

    node: Tensor
    ptr: Tensor
    n_nodes: int
    matrices: Mapping[str, tuple[CSR, CSR]]

    def csr(self, relation: str, transpose: bool = False) -> CSR:
        """Row i holds the sources (rows) of the edges into row i, rising; transposed the targets of those out of it.

        Returns:
            indptr int32 [K + 1], indices int32 [E], weight float32 [E]; the same tensors both ways where undirected.
        """
        if relation not in self.matrices:
            hint = near(relation, list(self.matrices)) or list(self.matrices)
            raise InputError(f"the sub-graph has no relation {relation!r}; the nearest are {hint}")
        return self.matrices[relation][int(transpose)]

    def edge_index(self, relation: str) -> Tensor:
        """Source and target rows of a relation's edges, int64 [2, E], as PyG wants them; weights: ``csr().weight``."""
        csr = self.csr(relation)
        rows = torch.arange(len(self.node), device=self.node.device)
        target = torch.repeat_interleave(rows, csr.indptr.diff(), output_size=len(csr.indices))
        return torch.stack([csr.indices.long(), target])

    def position(self, owner: Tensor, node: Tensor) -> Tensor:
        """The rows of nodes: perturbed indices are relabelled with the edges.

        Args:
            owner: Sample of each node, int64 [M].
            node: In the graph's unified numbering, int64 [M].

        Returns:
            int64 [M]; -1 where the sample's sub-graph is without the node.
        """
        if not len(self.node):
            return torch.full_like(node, -1)
        key = owner * self.n_nodes + node
        at = torch.searchsorted(self._key, key).clamp_(max=len(self.node) - 1)
        # Without the bounds sample 1's node -1 would be taken for sample 0's last.
        known = (self._key[at] == key) & (node >= 0) & (node < self.n_nodes)
        return torch.where(known, at, -1)

    @cached_property
    def _key(self) -> Tensor:
        """Rising number of each row's sample and node, int64 [K]."""
        return owner_of(self.ptr, len(self.node)) * self.n_nodes + self.node


def induced(graph: CellGraph, node: Tensor, ptr: Tensor) -> Subgraph:
    """The sub-graph of all relations that each node set induces: an edge stays if both its ends are in the set.

    Args:
        graph: The wild-type graph; node sets lie on its device.
        node: Nodes of all sets in unified numbering, rising within a set, int64 [K]; ``Closure.ragged`` gives them so.
        ptr: Set i is ``node[ptr[i]:ptr[i + 1]]``, int64 [B + 1]; sets may be empty.

    Raises:
        InputError: A set that is not rising or names a node that the graph lacks.
    """
    stack = _stack(graph)
    _check(node, ptr, graph.n_nodes)
    parts: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in range(stack.n_matrices)]
    for first, last in _chunks(stack.work + stack.n_matrices, node, ptr):
        rows = slice(int(ptr[first]), int(ptr[last]))
        owner = owner_of(ptr[first : last + 1] - ptr[first], rows.stop - rows.start)
        count, indices, weight = _edges_within(stack, node[rows], owner, last - first)
        ends = count.sum(1).tolist()
        split = zip(count, (indices + rows.start).split(ends), weight.split(ends), strict=True)
        for matrix, part in zip(parts, split, strict=True):
            matrix.append(part)
    csr = [_joined(matrix, node) for matrix in parts]
    return Subgraph(node, ptr, graph.n_nodes, {name: (csr[a], csr[b]) for name, (a, b) in stack.place.items()})


class Stack(NamedTuple):
    """All relations' matrices one below the other, over unified nodes: row m * n_nodes + i is row i of matrix m.

    Attributes:
        indptr: int32 [n_matrices * n_nodes + 1].
        indices: Unified numbers of sources, int32 [E].
        weight: float32 [E].
        work: Edges of a node in all matrices together, int64 [n_nodes].
        place: Relation -> numbers of its matrix and its transpose, the same one where it is symmetric.
        n_matrices: Their number.
    """

    indptr: Tensor
    indices: Tensor
    weight: Tensor
    work: Tensor
    place: Mapping[str, tuple[int, int]]
    n_matrices: int


_STACKS: WeakKeyDictionary[CellGraph, Stack] = WeakKeyDictionary()


def _stack(graph: CellGraph) -> Stack:
    """The graph's stack, made once a graph and device."""
    held = _STACKS.get(graph)
    if held is None or held.indptr.device != graph.csr(graph.relations[0]).indptr.device:
        held = _STACKS[graph] = _stacked(graph)
    return held


def _stacked(graph: CellGraph) -> Stack:
    count: list[Tensor] = []
    indices: list[Tensor] = []
    weight: list[Tensor] = []
    place: dict[str, tuple[int, int]] = {}
    for relation in graph.relations:
        source, target = (graph.span(kind).start for kind in graph.ends(relation))
        forward, backward = graph.csr(relation), graph.csr(relation, transpose=True)
        same = source == target and all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
        place[relation] = (len(count), len(count) + (not same))
        for matrix, row, column in ((forward, target, source), (backward, source, target))[: 2 - same]:
            after = graph.n_nodes - row - (len(matrix.indptr) - 1)
            count.append(torch.nn.functional.pad(matrix.indptr.diff(), (row, after)))
            indices.append(matrix.indices + column)
            weight.append(matrix.weight)
    degree = torch.stack(count)
    indptr = torch.nn.functional.pad(degree.view(-1).cumsum(0, dtype=torch.int32), (1, 0))
    return Stack(indptr, torch.cat(indices), torch.cat(weight), degree.sum(0), place, len(count))


def _chunks(work: Tensor, node: Tensor, ptr: Tensor) -> Iterator[tuple[int, int]]:
    """Runs of samples whose temporary tensors together stay below ``CHUNK_BYTES``."""
    n_samples, budget = len(ptr) - 1, CHUNK_BYTES // EDGE_BYTES
    per_row = torch.nn.functional.pad(work.index_select(0, node).cumsum(0), (1, 0))
    # A sample's table of rows takes 4 bytes a node, as much as a twelfth of the edges' temporary tensors.
    done = per_row[ptr].cpu() + torch.arange(n_samples + 1) * (len(work) // 12)
    first = 0
    while first < n_samples:
        last = int(torch.searchsorted(done, done[first] + budget, right=True)) - 1
        last = min(max(last, first + 1), n_samples)
        yield first, last
        first = last


def _edges_within(stack: Stack, node: Tensor, owner: Tensor, n_samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Edges of one chunk: look at all edges into its rows, keep those whose source is a row of the same sample.

    Returns:
        Edges per matrix and row, int32 [n_matrices, rows]; rows of the sources, counted from the chunk's first, int32
        [E]; weights float32 [E]; both in the order of matrix, row and source.
    """
    n_nodes, n_rows = len(stack.work), len(node)
    table = torch.full((n_samples * n_nodes,), -1, dtype=torch.int32, device=node.device)
    base = owner * n_nodes
    table[base + node] = torch.arange(n_rows, dtype=torch.int32, device=node.device)
    stacked = (node + torch.arange(stack.n_matrices, device=node.device)[:, None] * n_nodes).view(-1)
    start = stack.indptr.index_select(0, stacked)
    count = stack.indptr.index_select(0, stacked + 1) - start
    end = count.cumsum(0, dtype=torch.int32)
    total = int(end[-1]) if len(end) else 0
    row = torch.repeat_interleave(count, output_size=total)
    edge = torch.arange(total, dtype=torch.int32, device=node.device)
    edge += (start - end + count).index_select(0, row)
    source = stack.indices.index_select(0, edge)
    source += base.int().repeat(stack.n_matrices).index_select(0, row)
    found = table.index_select(0, source)
    keep = (found >= 0).nonzero().view(-1)
    kept = torch.bincount(row.index_select(0, keep), minlength=len(count)).int().view(stack.n_matrices, n_rows)
    return kept, found.index_select(0, keep), stack.weight.index_select(0, edge.index_select(0, keep))


def _joined(parts: list[tuple[Tensor, Tensor, Tensor]], node: Tensor) -> CSR:
    """One matrix of the chunks' counts, indices and weights."""
    if not parts:
        none = torch.zeros(0, dtype=torch.int32, device=node.device)
        return CSR(none.new_zeros(len(node) + 1), none, none.float())
    count, indices, weight = (torch.cat(column) for column in zip(*parts, strict=True))
    if len(indices) > torch.iinfo(torch.int32).max:
        raise InputError(
            f"a batch of {len(indices):,} edges in one relation is too large for int32; take fewer samples"
        )
    return CSR(torch.nn.functional.pad(count.cumsum(0, dtype=torch.int32), (1, 0)), indices, weight)


def _check(node: Tensor, ptr: Tensor, n_nodes: int) -> None:
    ends = int(ptr[0]), int(ptr[-1])
    if ends != (0, len(node)):
        raise InputError(f"ptr must run from 0 to the number of nodes, {len(node)}, not from {ends[0]} to {ends[1]}")
    if not len(node):
        return
    if int(node.min()) < 0 or int(node.max()) >= n_nodes:
        raise InputError(f"node sets name nodes {int(node.min())}..{int(node.max())}; the graph has 0..{n_nodes - 1}")
    owner = owner_of(ptr, len(node))
    falls = (owner * n_nodes + node).diff() <= 0
    if bool(falls.any()):
        sample = int(owner[1:][falls][0])
        raise InputError(f"the nodes of set {sample} don't rise; sort them and name each once")
