"""Fixed features of a gene from the spectra of the networks; they need no label, so a new gene has them too."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import scipy.sparse as sp

from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighbourhoods import adjacencies, neighbourhood


def spectral_features(graph: CellGraph, relations: Collection[str], width: int) -> np.ndarray:
    """Leading singular vectors of each relation's neighbourhoods, and the logarithm of the degree.

    Two genes that share neighbours get like rows: the dot product of two blocks approaches the cosine of the
    neighbourhoods. A directed relation gives two blocks, one a direction.

    Args:
        graph: Wild-type networks.
        relations: Names of those to use; relations of other nodes than genes are passed over.
        width: Singular vectors a relation.

    Returns:
        [nodes, blocks * (width + 1)], float32; a block's vectors times singular values have root mean square 1,
        log degrees mean 0 and standard deviation 1. Zeros for nodes that are no genes.
    """
    from sklearn.utils.extmath import randomized_svd

    blocks = []
    for name, matrix in adjacencies(graph):
        if name.removesuffix(" reversed") not in relations:
            continue
        near = neighbourhood(matrix)
        left, values, _ = randomized_svd(sp.csr_matrix(near), min(width, len(graph) - 1), random_state=0)
        scores = left * values
        scores -= scores.mean(0)
        degree = np.log1p(np.diff(matrix.indptr))[:, None]
        blocks += [scores / max(scores.std(), 1e-12), (degree - degree.mean()) / max(degree.std(), 1e-12)]
    table = np.zeros((graph.n_nodes, sum(block.shape[1] for block in blocks)), dtype=np.float32)
    if blocks:
        table[: len(graph)] = np.concatenate(blocks, axis=1)
    return table
