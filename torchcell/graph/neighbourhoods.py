"""What the wild-type networks say of a gene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from torchcell.graph.annotations import annotation_table, has_annotations
from torchcell.graph.cell_graph import CellGraph

CHUNK = 512
"""Rows made dense at once: 512 x 4,415 items in float32 are 9 MB."""

ANNOTATION_WEIGHT = 2.0
"""Length of the annotations' part of a row, where each network's is 1.

Chosen on the validation part of Costanzo with held-out queries (Pearson of ``network_neighbours``): .334 without
annotations; of those as they stand, .350 as counts with weight 1 and .3645 as TF-IDF with weight 2; of those propagated
to the terms above, as they are here, .356 as TF-IDF with weight 1 and .360 with weight 2.
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
    held = index >= 0
    pick = sp.csr_matrix((held.astype(np.float32), (np.arange(len(index)), np.where(held, index, 0))),
                         shape=(len(index), matrix.shape[0]))  # fmt: skip
    return (pick @ matrix).tocsr()


def neighbourhoods(graph: CellGraph, genes: Sequence[str] | np.ndarray) -> sp.csr_matrix:
    """Neighbourhood of each gene, itself included, in all relations side by side, and what is annotated to it.

    Args:
        graph: Wild-type networks, and annotations if it has any.
        genes: Names; the row of a gene outside the graph is empty.

    Returns:
        [genes, blocks * N + terms], float32, one block a relation and direction. The part of each block has length
        1, that of the annotations ``ANNOTATION_WEIGHT``.
    """
    index = graph.index(genes)
    blocks = [rows_of(neighbourhood(matrix), index) for _, matrix in adjacencies(graph)]
    if has_annotations(graph):
        blocks.append(ANNOTATION_WEIGHT * rows_of(annotation_table(graph), index))
    return sp.hstack(blocks, format="csr").astype(np.float32)


def neighbourhood(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Neighbourhood of each gene, itself included, in one relation.

    Edges count 1 whatever their weight, divided by the square root of how many genes share the
    neighbour, so that hubs say little. Each row has length 1, so that no relation outweighs another.

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


def cosine_neighbours(feature: sp.csr_matrix, k: int, damping: float = 0.0) -> sp.csr_matrix:
    """Cosine to the k nearest others, by size.

    Args:
        feature: One row an item [items, F].
        k: Neighbours kept per item.
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
