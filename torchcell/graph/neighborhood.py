"""Nodes within k hops of a perturbation: closures, neighborhoods, induced sub-graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from torchcell.graph.cell_graph import CSR, CellGraph, annotation_table, has_annotations
from torchcell.graph.cell_graph import owner as owner_of
from torchcell.io.cache import kept, read_arrays, write_arrays
from torchcell.io.errors import InputError, near
from torchcell.io.paths import own_home

HOPS = (1, 2, 3)
"""Supported k; with more hops nearly all nodes of a cell are reached."""
CLOSURE_BYTES = 64 * 2**20
"""Largest temporary array while a closure is built."""
CACHED_BYTES = 2**19
"""Bytes of masks that are searched at a time: they stay in the cache of a core, which halves the time."""
# Bit i of a byte is moved to byte i of a word: copy the byte into all eight, then keep one bit of each.
_COPIES = 0x0101010101010101
_BITS = int(np.array(0x8040201008040201, dtype=np.uint64).astype(np.int64))


class Closure(nn.Module):
    """For one k the nodes within k hops of every node, the node itself included.

    Edges of all relations count, whatever their direction. ``bits`` is a buffer uint8 [n_nodes, ceil(n_nodes / 8)],
    shared by all samples and not part of a ``state_dict``; node 8 i + j is bit j (of value 2 ** j) of byte i.

    Args:
        bits: The packed rows.
        k: Number of hops.
        graph_hash: ``hash`` of their graph.
    """

    bits: Tensor

    def __init__(self, bits: Tensor, k: int, graph_hash: str) -> None:
        super().__init__()
        self.k, self.graph_hash, self.n_nodes = k, graph_hash, len(bits)
        self.register_buffer("bits", bits, persistent=False)

    def packed(self, node: Tensor, ptr: Tensor) -> Tensor:
        """The union of the neighborhoods of the members of each set, as packed bits.

        Args:
            node: Members of all sets in unified numbering, int64 [M].
            ptr: Set i is ``node[ptr[i]:ptr[i + 1]]``, int64 [B + 1]; an empty set gets no nodes.

        Returns:
            uint8 [B, ceil(n_nodes / 8)].
        """
        start, size = ptr[:-1], ptr.diff()
        if len(size) and bool((size == size[0]).all()):  # the common case needs no sorting
            return self._or_all(node.view(len(size), int(size[0])))
        order = size.argsort(descending=True)
        start = start[order]
        # Sets are sorted by size, so that those with a further member come first; the work is that of M rows.
        n_left = (len(size) - torch.bincount(size).cumsum(0)).tolist() if len(size) else []
        merged = self.bits.new_zeros(len(size), self.bits.shape[1])
        for i, n in enumerate(n_left[:-1]):
            merged[:n] |= self.bits.index_select(0, node[start[:n] + i])
        return torch.empty_like(merged).index_copy_(0, order, merged)

    def _or_all(self, node: Tensor) -> Tensor:
        """OR of the rows of ``node`` int64 [B, L]: uint8 [B, ceil(n_nodes / 8)]."""
        if not node.shape[1]:
            return self.bits.new_zeros(len(node), self.bits.shape[1])
        merged = self.bits.index_select(0, node[:, 0])
        for i in range(1, node.shape[1]):
            merged |= self.bits.index_select(0, node[:, i])
        return merged

    def nodes(self, node: Tensor, ptr: Tensor) -> Tensor:
        """The node sets as masks, bool [B, n_nodes]; arguments as for ``packed``."""
        return unpack(self.packed(node, ptr), self.n_nodes)

    def ragged(self, node: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
        """The node sets as numbers: node int64 [K], sorted within a set, and ptr int64 [B + 1]."""
        packed = self.packed(node, ptr)
        nodes, size = [node.new_zeros(0)], [node.new_zeros(0)]
        for rows in packed.split(max(CACHED_BYTES // self.n_nodes, 1)):
            mask = unpack(rows, self.n_nodes)
            nodes.append(mask.nonzero()[:, 1])
            size.append(mask.sum(1))
        return torch.cat(nodes), torch.cat([node.new_zeros(1), torch.cat(size).cumsum(0)])

    def extra_repr(self) -> str:
        """Hops, nodes and bytes."""
        return f"k={self.k}, {self.n_nodes:,} nodes, {self.bits.nbytes:,} bytes"


def closure(graph: CellGraph, k: int) -> Closure:
    """The closure of ``graph`` for k hops, from the cache where it was computed before.

    The file is ``closures/<hash>-k<k>.npz`` below the data folder; it is computed once for all processes.

    Raises:
        InputError: A k other than 1, 2 or 3.
    """
    check_hops(k)
    path = own_home() / "closures" / f"{graph.hash[:16]}-k{k}.npz"
    return kept(
        path,
        lambda file: load_closure(file, graph, k),
        lambda: Closure(torch.from_numpy(compute_bits(graph, k)), k, graph.hash),
        lambda file, made: write_arrays(file, bits=made.bits.numpy(), k=np.array(k), hash=np.array(graph.hash)),
    )


def load_closure(path: str | Path, graph: CellGraph, k: int) -> Closure:
    """Read a closure that ``closure`` wrote.

    Raises:
        InputError: No such file, a damaged one, or one of another graph, number of hops or shape.
    """
    check_hops(k)
    arrays = read_arrays(path)
    try:
        bits, stored_k, stored_hash = arrays["bits"], int(arrays["k"]), str(arrays["hash"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is damaged or no closure ({error}); delete it, then run again") from error
    shape = (graph.n_nodes, -(-graph.n_nodes // 8))
    checks = {"graph": (stored_hash[:16], graph.hash[:16]), "k": (stored_k, k), "shape": (bits.shape, shape)}
    wrong = [
        f"its {name} is {actual}, not {expected}" for name, (actual, expected) in checks.items() if actual != expected
    ]
    if stored_hash != graph.hash or wrong or bits.dtype != np.uint8:
        reason = ", ".join(wrong) or f"it holds {bits.dtype} of graph {stored_hash}"
        raise InputError(f"{path} is no closure of this graph for k = {k}: {reason}; delete it, then run again")
    return Closure(torch.from_numpy(bits), k, stored_hash)


def compute_bits(graph: CellGraph, k: int) -> np.ndarray:
    """The packed rows of the closure, uint8 [n_nodes, ceil(n_nodes / 8)], by k passes over the edges."""
    check_hops(k)
    near = _neighbors(graph)
    n_nodes = near.shape[0]
    words = np.zeros((n_nodes, -(-n_nodes // 64)), dtype=np.uint64)  # whole words: eight bytes at a time
    step = max(CLOSURE_BYTES // n_nodes, 1)
    for first in range(0, n_nodes, step):
        rows = np.packbits(near[first : first + step].toarray(), axis=1, bitorder="little")
        words.view(np.uint8)[first : first + step, : rows.shape[1]] = rows
    for _ in range(k - 1):
        words = _one_hop_more(near, words)
    return np.ascontiguousarray(words.view(np.uint8)[:, : -(-n_nodes // 8)])


def _neighbors(graph: CellGraph) -> sp.csr_matrix:
    """Pairs with an edge of any relation in either direction, and the diagonal: bool CSR [n_nodes, n_nodes]."""
    union = sp.identity(graph.n_nodes, dtype=bool, format="csr")
    for relation in graph.relations:
        matrix = graph.scipy(relation).tocoo()
        source, target = graph.ends(relation)
        row, column = matrix.row + graph.span(target).start, matrix.col + graph.span(source).start
        shift = sp.csr_matrix((np.ones(len(row), dtype=bool), (row, column)), shape=union.shape)
        union = union + shift + shift.T
    return union.tocsr()


def _one_hop_more(near: sp.csr_matrix, words: np.ndarray) -> np.ndarray:
    """Row i becomes the OR of the rows of i and its neighbors; in chunks of rows."""
    grown = np.empty_like(words)
    most = max(CLOSURE_BYTES // words[0].nbytes, 1)
    first = 0
    while first < len(words):
        # As many rows as have ``most`` neighbors together, and at least one.
        last = int(np.searchsorted(near.indptr, near.indptr[first] + most, side="right")) - 1
        last = min(max(last, first + 1), len(words))
        indptr = near.indptr[first : last + 1]
        rows = words[near.indices[indptr[0] : indptr[-1]]]
        grown[first:last] = np.bitwise_or.reduceat(rows, indptr[:-1] - indptr[0], axis=0)
        first = last
    return grown


def unpack(packed: Tensor, n_nodes: int) -> Tensor:
    """Packed bits uint8 [B, ceil(n_nodes / 8)] as a mask bool [B, n_nodes]."""
    copies = torch.arange(256, device=packed.device) * _COPIES
    # A table with eight bool bytes for each value of a byte: five times as fast as shifting bits.
    word = (copies & _BITS).view(torch.uint8).ne(0).view(torch.int64)
    bits = word.index_select(0, packed.reshape(-1).int()).view(torch.bool)
    return bits.view(len(packed), 8 * packed.shape[1])[:, :n_nodes].contiguous()


def check_hops(k: int) -> None:
    """Raise an error for an unsupported number of hops."""
    if isinstance(k, bool) or not isinstance(k, int) or k not in HOPS:
        raise InputError(f"k must be one of {', '.join(map(str, HOPS))} hops, not {k!r}")


CHUNK = 512
"""Rows that are made dense at a time: 512 x 4,415 items in float32 are 9 MB."""

ANNOTATION_WEIGHT = 2.0
"""Length of the annotation part of a row; that of each network is 1.

Chosen on the validation part of Costanzo with held-out queries (Pearson of ``network_neighbors``): .334 without
annotations; without propagation to ancestors .350 as counts with weight 1 and .3645 as TF-IDF with weight 2; with
propagation, as here, .356 as TF-IDF with weight 1 and .360 with weight 2.
"""


def adjacencies(graph: CellGraph) -> Iterator[tuple[str, sp.csr_matrix]]:
    """Name and matrix [genes, genes] of each relation among genes; a directed one comes in both directions."""
    for relation in graph.relations:
        if graph.ends(relation) != ("gene", "gene"):
            continue
        matrix = graph.scipy(relation)
        yield relation, matrix
        if relation in graph.directed:
            yield f"{relation} reversed", matrix.T.tocsr()


def rows_of(matrix: sp.csr_matrix, index: np.ndarray) -> sp.csr_matrix:
    """Rows ``index`` of ``matrix``, empty where the index is -1."""
    known = index >= 0
    pick = sp.csr_matrix((known.astype(np.float32), (np.arange(len(index)), np.where(known, index, 0))),
                         shape=(len(index), matrix.shape[0]))  # fmt: skip
    return (pick @ matrix).tocsr()


def neighborhoods(graph: CellGraph, genes: Sequence[str] | np.ndarray) -> sp.csr_matrix:
    """Neighborhood of each gene, itself included, in all relations side by side, and its annotations.

    Args:
        graph: Wild-type networks, and annotations if it has any.
        genes: Names; the row of a gene outside the graph is empty.

    Returns:
        [genes, blocks * N + terms], float32, one block for each relation and direction. The part of a row in a block
        has length 1, the part of the annotations ``ANNOTATION_WEIGHT``.
    """
    index = graph.index(genes)
    blocks = [rows_of(neighborhood(matrix), index) for _, matrix in adjacencies(graph)]
    if has_annotations(graph):
        blocks.append(ANNOTATION_WEIGHT * rows_of(annotation_table(graph), index))
    return sp.hstack(blocks, format="csr").astype(np.float32)


def neighborhood(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Neighborhood of each gene, itself included, in one relation.

    An edge counts 1 whatever its weight, divided by the square root of the number of genes that share the neighbor, so
    that hubs count little. Each row has length 1, so that no relation outweighs another.

    Args:
        matrix: Adjacency [N, N].

    Returns:
        [N, N].
    """
    near = ((matrix != 0) + sp.eye(matrix.shape[0], dtype=bool)).astype(np.float32).tocsr()
    shared = np.asarray(near.sum(0)).ravel()
    near = near @ sp.diags(1 / np.sqrt(shared))
    length = np.sqrt(np.asarray(near.multiply(near).sum(1)).ravel())
    return (sp.diags(1 / length) @ near).tocsr()


def cosine_neighbors(feature: sp.csr_matrix, k: int, damping: float = 0.0) -> sp.csr_matrix:
    """Cosine of each item to the k others with the largest absolute cosine.

    Args:
        feature: A row for each item [items, F].
        k: Neighbors of an item.
        damping: Added to each norm, so that short profiles count less.

    Returns:
        Weights [items, items] with zero diagonal; not symmetric.
    """
    feature = feature.tocsr().astype(np.float32)
    norm = np.sqrt(np.asarray(feature.multiply(feature).sum(1)).ravel()) + damping
    unit = (sp.diags(np.divide(1, norm, out=np.zeros_like(norm), where=norm > 0)) @ feature).tocsr()
    transposed = unit.T.tocsr()
    n, blocks = feature.shape[0], []
    for start in range(0, n, CHUNK):
        cosine = (unit[start : start + CHUNK] @ transposed).toarray()
        cosine[np.arange(len(cosine)), start + np.arange(len(cosine))] = 0
        if k < n:
            size = np.abs(cosine)
            cosine[size < np.partition(size, n - k, axis=1)[:, n - k, None]] = 0
        blocks.append(sp.csr_matrix(cosine))
    return sp.vstack(blocks, format="csr").astype(np.float32)


CHUNK_BYTES = 16 * 2**20
"""Largest sum of temporary tensors, about; a larger sample is a chunk by itself. 64 MB are slower."""
EDGE_BYTES = 48
"""Temporary bytes for each edge into a node of a chunk."""


@dataclass(frozen=True, eq=False)
class Subgraph:
    """The edges within each of B node sets; rows 0..K-1 are the nodes of all sets, one set after the other.

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
        """Row i has the sources (rows) of the edges into row i in rising order; transposed: targets of edges out of it.

        Returns:
            indptr int32 [K + 1], indices int32 [E], weight float32 [E]; the same tensors for both where undirected.
        """
        if relation not in self.matrices:
            hint = near(relation, list(self.matrices)) or list(self.matrices)
            raise InputError(f"the sub-graph has no relation {relation!r}; the nearest are {hint}")
        return self.matrices[relation][int(transpose)]

    def edge_index(self, relation: str) -> Tensor:
        """Source and target rows of a relation's edges, int64 [2, E], as in PyG; weights: ``csr().weight``."""
        csr = self.csr(relation)
        rows = torch.arange(len(self.node), device=self.node.device)
        target = torch.repeat_interleave(rows, csr.indptr.diff(), output_size=len(csr.indices))
        return torch.stack([csr.indices.long(), target])

    def position(self, owner: Tensor, node: Tensor) -> Tensor:
        """The rows of nodes, e.g. of perturbed genes.

        Args:
            owner: Sample of each node, int64 [M].
            node: In the graph's unified numbering, int64 [M].

        Returns:
            int64 [M]; -1 where the node is not in the sub-graph of the sample.
        """
        if not len(self.node):
            return torch.full_like(node, -1)
        key = owner * self.n_nodes + node
        at = torch.searchsorted(self._key, key).clamp_(max=len(self.node) - 1)
        # Without the bounds node -1 of sample 1 would be the last node of sample 0.
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
    """The matrices of all relations one below the other, over all nodes: row m * n_nodes + i is row i of matrix m.

    Attributes:
        indptr: int32 [n_matrices * n_nodes + 1].
        indices: Unified numbers of sources, int32 [E].
        weight: float32 [E].
        work: Number of edges of each node in all matrices, int64 [n_nodes].
        place: Relation -> numbers of its matrix and of the transpose, the same where it is symmetric.
        n_matrices: Number of matrices.
    """

    indptr: Tensor
    indices: Tensor
    weight: Tensor
    work: Tensor
    place: Mapping[str, tuple[int, int]]
    n_matrices: int


_STACKS: WeakKeyDictionary[CellGraph, Stack] = WeakKeyDictionary()


def _stack(graph: CellGraph) -> Stack:
    """The stack of a graph, made once for each graph and device."""
    stack = _STACKS.get(graph)
    if stack is None or stack.indptr.device != graph.csr(graph.relations[0]).indptr.device:
        stack = _STACKS[graph] = _stacked(graph)
    return stack


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
    """Edges of one chunk: of all edges into its rows those whose source is a row of the same sample.

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
    source_row = table.index_select(0, source)
    keep = (source_row >= 0).nonzero().view(-1)
    n_edges = torch.bincount(row.index_select(0, keep), minlength=len(count)).int().view(stack.n_matrices, n_rows)
    return n_edges, source_row.index_select(0, keep), stack.weight.index_select(0, edge.index_select(0, keep))


def _joined(parts: list[tuple[Tensor, Tensor, Tensor]], node: Tensor) -> CSR:
    """One matrix from the counts, indices and weights of the chunks."""
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
