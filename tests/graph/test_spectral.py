"""Spectral features: alike for genes of like neighborhoods, the same twice, zeros for other nodes."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.features import spectral_features


def graph() -> CellGraph:
    """Two cliques of six genes, and a directed star."""
    cliques = np.kron(np.eye(2), np.ones((6, 6))) - np.eye(12)
    star = np.zeros((12, 12))
    star[1:, 0] = 1
    reaction = np.ones((1, 12))
    return CellGraph(
        [f"g{i}" for i in range(12)],
        {"cliques": sp.csr_matrix(cliques), "star": sp.csr_matrix(star), "catalyses": sp.csr_matrix(reaction)},
        directed=["star", "catalyses"],
        nodes={"reaction": ["r"]},
        ends={"catalyses": ("gene", "reaction")},
    )


def test_genes_of_one_clique_are_alike_and_of_two_are_not():
    table = spectral_features(graph(), ["cliques"], 2)
    assert table.shape == (13, 3)
    np.testing.assert_allclose(table[0], table[5], atol=1e-5)
    assert np.abs(table[0] - table[6]).max() > 0.5


def test_a_directed_relation_gives_a_block_a_direction_and_other_nodes_get_zeros():
    table = spectral_features(graph(), ["cliques", "star", "catalyses"], 2)
    assert table.shape == (13, 3 * 3)
    assert (table[12] == 0).all()


def test_the_same_graph_gives_the_same_numbers():
    assert np.array_equal(spectral_features(graph(), ["star"], 3), spectral_features(graph(), ["star"], 3))
