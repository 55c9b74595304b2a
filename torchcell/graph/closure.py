"""``Closure``: the nodes within k hops of every node as packed bits, so that a sample's node set is an OR of rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from torchcell.data.arrays import kept, read_arrays, write_arrays
from torchcell.data.errors import InputError
from torchcell.data.sources import data_home
from torchcell.graph.cell_graph import CellGraph

HOPS = (1, 2, 3)
"""Supported k; beyond three hops a cell's graph is one piece."""
CHUNK_BYTES = 64 * 2**20
"""Largest temporary array while a closure is built."""
CACHED_BYTES = 2**19
"""Masks that are searched at a time: they stay in a core's cache, which halves the time."""
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
        graph_hash: ``hash`` of the graph that they were computed of.
    """

    bits: Tensor

    def __init__(self, bits: Tensor, k: int, graph_hash: str) -> None:
        super().__init__()
        self.k, self.graph_hash, self.n_nodes = k, graph_hash, len(bits)
        self.register_buffer("bits", bits, persistent=False)

    def packed(self, node: Tensor, ptr: Tensor) -> Tensor:
        """The union of the members' neighbourhoods per set, as packed bits: the fast node set.

        Args:
            node: Members of all sets in unified numbering, int64 [M].
            ptr: Set i is ``node[ptr[i]:ptr[i + 1]]``, int64 [B + 1]; a set may be empty, and has no nodes then.

        Returns:
            uint8 [B, ceil(n_nodes / 8)].
        """
        start, size = ptr[:-1], ptr.diff()
        if len(size) and bool((size == size[0]).all()):  # the common case: one reduction, nothing to reorder
            return self._or_all(node.view(len(size), int(size[0])))
        order = size.argsort(descending=True)
        start = start[order]
        # Of sets sorted by size those with a further member come first, so the work is that of M rows.
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
        found, size = [node.new_zeros(0)], [node.new_zeros(0)]
        for rows in packed.split(max(CACHED_BYTES // self.n_nodes, 1)):
            mask = unpack(rows, self.n_nodes)
            found.append(mask.nonzero()[:, 1])
            size.append(mask.sum(1))
        return torch.cat(found), torch.cat([node.new_zeros(1), torch.cat(size).cumsum(0)])

    def extra_repr(self) -> str:
        """Hops, nodes and bytes."""
        return f"k={self.k}, {self.n_nodes:,} nodes, {self.bits.nbytes:,} bytes"


def closure(graph: CellGraph, k: int) -> Closure:
    """The closure of ``graph`` for k hops, from the cache where it was computed before.

    The file is ``closures/<hash>-k<k>.npz`` below the data folder; however many processes ask, it is computed once.

    Raises:
        InputError: A k other than 1, 2 or 3.
    """
    check_hops(k)
    path = data_home() / "closures" / f"{graph.hash[:16]}-k{k}.npz"
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
    wrong = [f"its {what} is {found}, not {wanted}" for what, (found, wanted) in checks.items() if found != wanted]
    if stored_hash != graph.hash or wrong or bits.dtype != np.uint8:
        said = ", ".join(wrong) or f"it holds {bits.dtype} of graph {stored_hash}"
        raise InputError(f"{path} is no closure of this graph for k = {k}: {said}; delete it, then run again")
    return Closure(torch.from_numpy(bits), k, stored_hash)


def compute_bits(graph: CellGraph, k: int) -> np.ndarray:
    """The packed closure rows, uint8 [n_nodes, ceil(n_nodes / 8)]; k passes over the edges, each once a pair."""
    check_hops(k)
    near = _neighbours(graph)
    n_nodes = near.shape[0]
    words = np.zeros((n_nodes, -(-n_nodes // 64)), dtype=np.uint64)  # whole words: eight bytes at a time
    step = max(CHUNK_BYTES // n_nodes, 1)
    for first in range(0, n_nodes, step):
        rows = np.packbits(near[first : first + step].toarray(), axis=1, bitorder="little")
        words.view(np.uint8)[first : first + step, : rows.shape[1]] = rows
    for _ in range(k - 1):
        words = _one_hop_more(near, words)
    return np.ascontiguousarray(words.view(np.uint8)[:, : -(-n_nodes // 8)])


def _neighbours(graph: CellGraph) -> sp.csr_matrix:
    """Pairs joined in either direction by any relation, and the diagonal: bool CSR [n_nodes, n_nodes]."""
    union = sp.identity(graph.n_nodes, dtype=bool, format="csr")
    for relation in graph.relations:
        matrix = graph.scipy(relation).tocoo()
        source, target = graph.ends(relation)
        row, column = matrix.row + graph.span(target).start, matrix.col + graph.span(source).start
        shift = sp.csr_matrix((np.ones(len(row), dtype=bool), (row, column)), shape=union.shape)
        union = union + shift + shift.T
    return union.tocsr()


def _one_hop_more(near: sp.csr_matrix, words: np.ndarray) -> np.ndarray:
    """Row i becomes the OR of the rows of i and its neighbours; in chunks of rows."""
    grown = np.empty_like(words)
    most = max(CHUNK_BYTES // words[0].nbytes, 1)
    first = 0
    while first < len(words):
        # As many rows as have ``most`` neighbours together; one row at least, since no row is cut.
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
    # One word of eight true or false bytes for each value of a byte: five times as fast as shifting bits.
    word = (copies & _BITS).view(torch.uint8).ne(0).view(torch.int64)
    bits = word.index_select(0, packed.reshape(-1).int()).view(torch.bool)
    return bits.view(len(packed), 8 * packed.shape[1])[:, :n_nodes].contiguous()


def check_hops(k: int) -> None:
    """Refuse a number of hops that no closure is made for."""
    if isinstance(k, bool) or not isinstance(k, int) or k not in HOPS:
        raise InputError(f"k must be one of {', '.join(map(str, HOPS))} hops, not {k!r}")
