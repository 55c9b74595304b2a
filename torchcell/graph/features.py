"""Features of genes from the networks, and random networks of the same degrees as a control."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import scipy.sparse as sp

from torchcell.graph.cell_graph import ANNOTATED, CellGraph, annotation_table, has_annotations
from torchcell.graph.neighborhood import adjacencies, neighborhood
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.io.gene_features import GeneFeatures, read_gene_features


def spectral_features(graph: CellGraph, relations: Collection[str], width: int) -> np.ndarray:
    """Leading singular vectors of each relation's neighborhoods, and the logarithm of the degree.

    Genes that share neighbors get similar rows: the dot product of two blocks approaches the cosine of the
    neighborhoods. A directed relation gives two blocks, one for each direction.

    Args:
        graph: Wild-type networks.
        relations: Names of the relations to use; those of other nodes than genes are ignored.
        width: Number of singular vectors for a relation.

    Returns:
        [nodes, blocks * (width + 1)], float32; a block's vectors times singular values have root mean square 1,
        log degrees mean 0 and standard deviation 1. Zeros for nodes that are no genes.
    """
    from sklearn.utils.extmath import randomized_svd

    blocks = []
    for name, matrix in adjacencies(graph):
        if name.removesuffix(" reversed") not in relations:
            continue
        near = neighborhood(matrix)
        left, values, _ = randomized_svd(sp.csr_matrix(near), min(width, len(graph) - 1), random_state=0)
        scores = left * values
        scores -= scores.mean(0)
        degree = np.log1p(np.diff(matrix.indptr))[:, None]
        blocks += [scores / max(scores.std(), 1e-12), (degree - degree.mean()) / max(degree.std(), 1e-12)]
    table = np.zeros((graph.n_nodes, sum(block.shape[1] for block in blocks)), dtype=np.float32)
    if blocks:
        table[: len(graph)] = np.concatenate(blocks, axis=1)
    return table


@configurable
def network_features(
    graph: CellGraph, spectral: int = 32, terms: int = 96, relations: Collection[str] | None = None
) -> GeneFeatures:
    """Spectra of the networks, log degrees and a truncated SVD of the gene's annotations.

    Each block of vectors is centered and has root mean square 1 as a whole, so that leading vectors stay larger than
    trailing ones; log degrees have mean 0 and standard deviation 1. See ``spectral_features``, ``annotation_table``.
    Vectors of two graphs are not comparable: for two organisms give a table of features that both share.

    Args:
        graph: The wild-type cell. Annotations are its relation ``annotated`` from genes to terms, if it has one.
        spectral: Singular vectors of each relation among genes, and of each direction of a directed one.
        terms: Singular vectors of the annotations; 0 leaves them out.
        relations: Networks to use; all by default.

    Returns:
        A row for each gene of the graph; columns ``physical 1`` .., ``physical log degree`` .., ``annotated 1`` ..

    Raises:
        InputError: A width that is no positive number, an unknown relation, or a graph that gives no feature.
    """
    if spectral < 1 or terms < 0:
        raise InputError(f"network features: spectral={spectral} must be 1 or more, terms={terms} 0 or more")
    chosen = graph.relations if relations is None else tuple(relations)
    for relation in chosen:
        graph.ends(relation)  # raises with the nearest names
    blocks_of = [name for name, _ in adjacencies(graph) if name.removesuffix(" reversed") in chosen]
    width = min(spectral, len(graph) - 1)
    columns = [f"{name} {part}" for name in blocks_of for part in (*range(1, width + 1), "log degree")]
    blocks = [spectral_features(graph, chosen, spectral)[: len(graph)]]
    if terms and has_annotations(graph):
        blocks.append(_leading(annotation_table(graph), terms))
        columns += [f"{ANNOTATED} {i + 1}" for i in range(blocks[-1].shape[1])]
    if not columns:
        raise InputError("network features: the graph has neither a relation among genes nor annotations")
    values = np.concatenate(blocks, axis=1).astype(np.float32)
    return GeneFeatures(graph.genes, tuple(columns), values, frozenset(columns)).validate()


@configurable
def table_features(graph: CellGraph, path: str) -> GeneFeatures:
    """Features of the graph's genes from a user's file, see ``read_gene_features``; other rows are ignored."""
    features = read_gene_features(path)
    return GeneFeatures(graph.genes, features.columns, features.aligned(graph.genes.tolist()))


@configurable
def joined_features(graph: CellGraph, parts: Mapping[str, Callable[[CellGraph], GeneFeatures]]) -> GeneFeatures:
    """Several features of the graph's genes side by side.

    Args:
        graph: The wild-type cell.
        parts: Functions by any name, e.g. partials of ``network_features`` and ``table_features``. Scales are not
            changed.
    """
    made = [make(graph) for make in parts.values()]
    values = [features.aligned(graph.genes.tolist()) for features in made]
    columns = tuple(column for features in made for column in features.columns)
    computed = frozenset(column for features in made for column in features.computed)
    return GeneFeatures(graph.genes, columns, np.concatenate(values, axis=1), computed).validate()


def _leading(table: sp.csr_matrix, width: int) -> np.ndarray:
    """Leading singular vectors times singular values, centered, root mean square 1 over all of them."""
    from sklearn.utils.extmath import randomized_svd

    left, values, _ = randomized_svd(table, min(width, min(table.shape)), random_state=0)
    scores = left * values
    scores -= scores.mean(0)
    return scores / max(float(scores.std()), 1e-12)


def randomize(graph: CellGraph, relations: Sequence[str] | None = None, seed: int = 0, swaps: int = 10) -> CellGraph:
    """The same nodes with rewired networks (Maslov and Sneppen, Science 2002, doi:10.1126/science.1065103).

    Two edges a -> b and c -> d become a -> d and c -> b unless one of these exists or would join a gene to itself.
    So in- and out-degrees (of an undirected relation: degrees) stay the same, and no edge comes twice. An edge keeps
    its weight. Existing edges of a gene to itself stay. A relation's result depends on the
    seed and its own edges, not on which other relations are rewired.

    Args:
        graph: The cell.
        relations: Relations to rewire; by default all that join genes to genes. The others do not change.
        seed: Seed of the random numbers.
        swaps: Number of tried swaps for every edge. In a sparse network few of them fail.

    Returns:
        A new graph with the same nodes, ends, rules and directions.

    Raises:
        InputError: An unknown relation, one that does not join genes, or an undirected one that is not symmetric.
    """
    among_genes = [name for name in graph.relations if graph.ends(name) == ("gene", "gene")]
    chosen = among_genes if relations is None else list(relations)
    for name in chosen:
        if graph.ends(name) != ("gene", "gene"):
            raise InputError(f"relation {name} joins {graph.ends(name)}; only those among genes can be randomized")
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
        graph.dropped,
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
    """Propose one swap for each edge, all at once and in place.

    No edge is in two proposals, so that all proposals without a collision, with an existing edge or with each other,
    can be made together.
    """
    half = len(row) // 2
    order = rng.permutation(len(row))
    one, two = order[:half], order[half : 2 * half]
    if not directed:  # either end of an undirected edge may be its first
        reversed_edges = two[rng.random(half) < 0.5]
        row[reversed_edges], column[reversed_edges] = column[reversed_edges], row[reversed_edges]
    proper = (row[one] != column[two]) & (row[two] != column[one])
    one, two = one[proper], two[proper]
    key_1, key_2 = _key(row[one], column[two], n, directed), _key(row[two], column[one], n, directed)
    # A key that occurs twice among edges and proposals is a collision; most keys occur once.
    keys = np.sort(np.concatenate([_key(row, column, n, directed), key_1, key_2]))
    taken = np.unique(keys[1:][keys[1:] == keys[:-1]])
    free = ~(_among(key_1, taken) | _among(key_2, taken))
    one, two = one[free], two[free]
    column[one], column[two] = column[two], column[one]


def _key(row: np.ndarray, column: np.ndarray, n: int, directed: bool) -> np.ndarray:
    """One number for each edge; the same for both directions of an undirected one."""
    return row * n + column if directed else np.minimum(row, column) * n + np.maximum(row, column)


def _among(key: np.ndarray, sorted_keys: np.ndarray) -> np.ndarray:
    """Which keys are in a sorted array."""
    if not len(sorted_keys):
        return np.zeros(len(key), dtype=bool)
    position = np.searchsorted(sorted_keys, key)
    return sorted_keys[np.minimum(position, len(sorted_keys) - 1)] == key
