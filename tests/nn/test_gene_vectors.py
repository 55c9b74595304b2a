"""Vectors by name: their size, and what untrained and added genes have instead of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchcell.graph.cell_graph import CellGraph
from torchcell.nn.gene_embedding import GeneVectors, Imputation

N, OWN, WIDTH = 10, 8, 6
FEATURES = torch.eye(N)
FEATURES[8] = FEATURES[2] + FEATURES[3]  # of two added genes one is like 2 and 3, one like nobody
FEATURES[9] = 1


def cold(everyone: bool = False) -> Imputation:
    """Genes 2, 3 and 4 have the same neighbors; 6 was not trained and knows only 7; 8 and 9 are in no network."""
    matrix = np.zeros((N, N), dtype=np.float32)
    matrix[:2, 2:5] = matrix[0, 5] = matrix[6, 7] = 1
    graph = CellGraph([f"g{i}" for i in range(N)], {"r": np.maximum(matrix, matrix.T)})
    trained = torch.tensor([0, 1, 2, 3, 4, 5, 7])
    return Imputation(graph, trained, k=2, features=FEATURES, everyone=everyone)


def test_rows_have_length_1_on_average_whatever_the_width():
    for width in (4, 64):
        torch.manual_seed(0)
        vectors = GeneVectors(2000, 2000, width)
        torch.testing.assert_close(vectors().square().sum(1).mean(), torch.tensor(1.0), atol=0.05, rtol=0.0)
        torch.testing.assert_close(vectors.length(torch.arange(2000)), vectors().square().sum(1).mean())


def test_added_genes_have_zeros_and_all_others_their_own_row():
    vectors = GeneVectors(N, OWN, WIDTH)
    x_NW = vectors()
    assert torch.equal(x_NW[:OWN], vectors.table.weight)
    assert torch.equal(x_NW[OWN:], torch.zeros(N - OWN, WIDTH))
    assert {name: tuple(value.shape) for name, value in vectors.state_dict().items()} == {"table.weight": (OWN, WIDTH)}


def test_untrained_and_added_genes_borrow_and_the_trained_keep_theirs():
    vectors = GeneVectors(N, OWN, WIDTH, cold())
    x_NW, own_OW = vectors(), vectors.table.weight
    trained = [0, 1, 2, 3, 4, 5, 7]
    assert torch.equal(x_NW[trained], own_OW[trained])
    torch.testing.assert_close(x_NW[6], own_OW[7])
    torch.testing.assert_close(x_NW[8], own_OW[[2, 3]].mean(0))


def test_the_weights_are_the_same_with_and_without_added_genes():
    own, more = GeneVectors(OWN, OWN, WIDTH), GeneVectors(N, OWN, WIDTH, cold())
    more.load_state_dict(own.state_dict())
    assert torch.equal(more()[:6], own()[:6])


def test_genes_marked_as_cold_borrow_too_and_those_they_borrow_from_learn():
    vectors = GeneVectors(N, OWN, WIDTH, cold(everyone=True))
    marked = torch.zeros(N, dtype=torch.bool)
    marked[3] = True
    x_NW, own_OW = vectors(marked), vectors.table.weight
    others = [0, 1, 2, 4, 5, 7]
    assert torch.equal(x_NW[others], own_OW[others])
    x_NW[3].sum().backward()
    lenders = own_OW.grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert len(lenders) == 2
    assert 3 not in lenders
    assert own_OW.grad.sum(0).tolist() == pytest.approx([1] * WIDTH), "a mean over those it borrows from"


def test_the_length_is_that_of_the_members_alone_also_where_one_stands_twice():
    vectors = GeneVectors(N, OWN, WIDTH)
    gene_M = torch.tensor([3, 5, 3])
    expected = sum(vectors.table.weight[i].square().sum() for i in (3, 5, 3)) / 3
    torch.testing.assert_close(vectors.length(gene_M), expected)


def test_an_added_genes_length_is_refused_and_not_read_from_elsewhere():
    with pytest.raises(IndexError):
        GeneVectors(N, OWN, WIDTH).length(torch.tensor([8]))
