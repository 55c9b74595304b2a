"""Random networks in which each gene keeps its degree: the control for what a network's wiring says."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from torchcell.data.errors import InputError
from torchcell.graph.cell_graph import CellGraph


def randomise(graph: CellGraph, relations: Sequence[str] | None = None, seed: int = 0, swaps: int = 10) -> CellGraph:
    """The same nodes with rewired networks (Maslov and Sneppen, Science 2002, doi:10.1126/science.1065103).

    Two edges a -> b and c -> d become a -> d and c -> b unless one of these exists or would join a gene to itself.
    So in- and out-degrees (of an undirected relation: degrees) stay exactly as they are and no edge comes twice.
    Each edge takes its weight along. Existing edges of a gene to itself stay. A relation's result depends on the
    seed and its own edges, not on which other relations are rewired.

    Args:
        graph: The cell.
        relations: Which to rewire; by default all that join genes to genes. The others stay as they are.
        seed: Of the random numbers.
        swaps: How often a swap is tried for every edge. In a sparse network few tries fail.

    Returns:
        A new graph with the same nodes, ends, rules and directions.

    Raises:
        InputError: An unknown relation, one that does not join genes, or an undirected one that is not symmetric.
    """
    among_genes = [name for name in graph.relations if graph.ends(name) == ("gene", "gene")]
    chosen = among_genes if relations is None else list(relations)
    for name in chosen:
        if graph.ends(name) != ("gene", "gene"):
            raise InputError(f"relation {name} joins {graph.ends(name)}; only those among genes can be randomised")
    matrices = {name: graph.scipy(name) for name in graph.relations}
    for name in chosen:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if name not in graph.directed and (matrices[name] != matrices[name].T).nnz:
            raise InputError(f"relation {name} is not symmetric: list it among the directed ones")
        matrices[name] = _rewired(matrices[name], name in graph.directed, swaps, rng)
    return CellGraph(
        graph.genes.tolist(),
        matrices,
        graph.directed,
        graph.lost,
        {kind: graph.names(kind).tolist() for kind in graph.node_types if kind != "gene"},
        {name: graph.ends(name) for name in graph.relations},
        graph.rules,
    )


def _rewired(matrix: sp.csr_matrix, directed: bool, swaps: int, rng: np.random.Generator) -> sp.csr_matrix:
    """A matrix [N, N] with the same row and column counts."""
    coo = matrix.tocoo()
    row, column, weight = coo.row.astype(np.int64), coo.col.astype(np.int64), coo.data
    loop = row == column
    kept = ~loop if directed else row < column
    loops = row[loop], column[loop], weight[loop]
    row, column, weight = row[kept], column[kept], weight[kept]
    for _ in range(swaps):
        _swap_once(row, column, matrix.shape[0], directed, rng)
    parts = [(row, column, weight), loops]
    if not directed:
        parts.append((column, row, weight))
    row, column, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sp.csr_matrix((weight, (row, column)), shape=matrix.shape)


def _swap_once(row: np.ndarray, column: np.ndarray, n: int, directed: bool, rng: np.random.Generator) -> None:
    """Propose each edge one swap with another, all at once and in place.

    No edge is in two proposals, so those that collide neither with an edge that was there nor with each other can
    be made together.
    """
    half = len(row) // 2
    order = rng.permutation(len(row))
    one, two = order[:half], order[half : 2 * half]
    if not directed:  # either end of an undirected edge may be its first
        turned = two[rng.random(half) < 0.5]
        row[turned], column[turned] = column[turned], row[turned]
    proper = (row[one] != column[two]) & (row[two] != column[one])
    one, two = one[proper], two[proper]
    key_1, key_2 = _key(row[one], column[two], n, directed), _key(row[two], column[one], n, directed)
    # A key that occurs twice among edges and proposals is a collision; most occur once, so little is searched.
    everything = np.sort(np.concatenate([_key(row, column, n, directed), key_1, key_2]))
    taken = np.unique(everything[1:][everything[1:] == everything[:-1]])
    free = ~(_among(key_1, taken) | _among(key_2, taken))
    one, two = one[free], two[free]
    column[one], column[two] = column[two], column[one]


def _key(row: np.ndarray, column: np.ndarray, n: int, directed: bool) -> np.ndarray:
    """One number an edge; the same for both ways of writing an undirected one."""
    return row * n + column if directed else np.minimum(row, column) * n + np.maximum(row, column)


def _among(key: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Which keys are in a sorted list."""
    if not len(listed):
        return np.zeros(len(key), dtype=bool)
    place = np.searchsorted(listed, key)
    return listed[np.minimum(place, len(listed) - 1)] == key
