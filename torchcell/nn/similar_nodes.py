"""Which nodes of a kind have alike neighbours in a message graph."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from torchcell.graph.typed_graph import TypedGraph
from torchcell.nn.contrastive import similar_pairs


def similar_nodes(
    graph: TypedGraph, kind: int, above: float | int, most: int = 32
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Pairs of nodes of one kind by the Jaccard index of their neighbours, whatever the metaedge.

    Args:
        graph: The message graph; what is held out is no neighbour.
        kind: Number of the kind.
        above: See ``similar_pairs``, as is ``most``.

    Returns:
        first and second [P], int64 positions within the kind.
    """
    bounds = [int(bound) for bound in graph.bounds]
    shape = bounds[kind + 1] - bounds[kind], bounds[-1]
    neighbours = sp.csr_matrix(shape, dtype=np.float32)
    for r, relation in enumerate(graph.relations):
        if relation.target == kind:
            indptr, indices, weight = (part.cpu().numpy() for part in graph.csr(r))
            place = indices.astype(np.int64) + bounds[relation.source]
            neighbours = neighbours + sp.csr_matrix((weight, place, indptr), shape=shape)
    return similar_pairs(neighbours, above, most)
