"""Untrained genes take the mean of their nearest trained ones; nobody else changes."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from torchcell.graph.cell_graph import CellGraph
from torchcell.nn.cold_start import ColdStart


def cliques() -> CellGraph:
    """Two cliques of four genes, a gene alone, and a reaction."""
    matrix = np.zeros((9, 9))
    matrix[:4, :4] = matrix[4:8, 4:8] = 1
    np.fill_diagonal(matrix, 0)
    return CellGraph(
        [f"g{i}" for i in range(9)],
        {"r": sp.csr_matrix(matrix), "catalyses": sp.csr_matrix(np.ones((1, 9)))},
        directed=["catalyses"],
        nodes={"reaction": ["x"]},
        ends={"catalyses": ("gene", "reaction")},
    )


def test_an_untrained_gene_takes_the_mean_of_its_clique_and_all_others_keep_theirs():
    x = torch.randn(10, 3)
    out = ColdStart(cliques(), torch.tensor([1, 2, 3, 4, 5, 6]), k=50)(x)
    torch.testing.assert_close(out[0], x[1:4].mean(0))
    torch.testing.assert_close(out[7], x[4:7].mean(0))
    torch.testing.assert_close(out[1:7], x[1:7])
    torch.testing.assert_close(out[8:], x[8:])  # no neighbours; and no gene at all


def test_only_the_nearest_count():
    matrix = np.zeros((4, 4))
    matrix[0, [1, 2]] = matrix[1, [0, 2]] = matrix[2, [0, 1]] = 1  # a triangle
    matrix[0, 3] = matrix[3, 0] = 1  # and a gene that shares less with gene 0
    graph = CellGraph(list("abcd"), {"r": sp.csr_matrix(matrix)})
    x = torch.randn(4, 2)
    out = ColdStart(graph, torch.tensor([1, 3]), k=1)(x)
    torch.testing.assert_close(out[0], x[1])


def test_with_all_genes_trained_nothing_changes_and_gradients_reach_the_lenders():
    graph, x = cliques(), torch.randn(10, 3, requires_grad=True)
    torch.testing.assert_close(ColdStart(graph, torch.arange(9))(x), x)
    ColdStart(graph, torch.tensor([1, 2]))(x)[0].sum().backward()
    torch.testing.assert_close(x.grad[1:3], torch.full((2, 3), 0.5))
    assert (x.grad[0] == 0).all()
