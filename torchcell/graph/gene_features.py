"""Gene features from what is known of the wild-type cell: its networks, its annotations, a user's table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import scipy.sparse as sp

from torchcell.data.errors import InputError
from torchcell.data.gene_features import GeneFeatures, read_gene_features
from torchcell.graph.annotations import ANNOTATED, annotation_table, has_annotations
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighbourhoods import adjacencies
from torchcell.graph.spectral import spectral_features


def network_features(
    graph: CellGraph, spectral: int = 32, terms: int = 96, relations: Collection[str] | None = None
) -> GeneFeatures:
    """Spectra of the networks, log degrees and a truncated SVD of the gene's annotations.

    Each block of vectors is centred and has root mean square 1 as a whole, so that leading vectors stay larger than
    trailing ones; log degrees have mean 0 and standard deviation 1. See ``spectral_features``, ``annotation_table``.
    Vectors of two graphs are not comparable: for two organisms give a table of features that both share.

    Args:
        graph: The wild-type cell. Annotations are its relation ``annotated`` from genes to terms, if it has one.
        spectral: Singular vectors of each relation among genes, and of each direction of a directed one.
        terms: Singular vectors of the annotations; 0 leaves them out.
        relations: Networks to use; all by default.

    Returns:
        A row a gene of the graph; columns ``physical 1`` .., ``physical log degree`` .., ``annotated 1`` ..

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


def table_features(graph: CellGraph, path: str) -> GeneFeatures:
    """A user's features of the graph's genes, see ``read_gene_features``; other rows of the file are passed over."""
    features = read_gene_features(path)
    return GeneFeatures(graph.genes, features.columns, features.aligned(graph.genes.tolist()))


def joined_features(graph: CellGraph, parts: Mapping[str, Callable[[CellGraph], GeneFeatures]]) -> GeneFeatures:
    """Several features of the graph's genes side by side.

    Args:
        graph: The wild-type cell.
        parts: By a name of your own, e.g. partials of ``network_features`` and ``table_features``. Each stays on the
            scale it came in.
    """
    made = [make(graph) for make in parts.values()]
    values = [features.aligned(graph.genes.tolist()) for features in made]
    columns = tuple(column for features in made for column in features.columns)
    computed = frozenset(column for features in made for column in features.computed)
    return GeneFeatures(graph.genes, columns, np.concatenate(values, axis=1), computed).validate()


def _leading(table: sp.csr_matrix, width: int) -> np.ndarray:
    """Leading singular vectors times singular values, centred, root mean square 1 over all of them."""
    from sklearn.utils.extmath import randomized_svd

    left, values, _ = randomized_svd(table, min(width, min(table.shape)), random_state=0)
    scores = left * values
    scores -= scores.mean(0)
    return scores / max(float(scores.std()), 1e-12)
