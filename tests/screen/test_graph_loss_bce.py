"""The cross-entropy on edges: all pairs against the dense form, sampled pairs right in kind and on average."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from tests.screen.small_networks import TIGHT, WIDTH, N, assert_same, cell, edges, network, tensors
from torchcell.screen.models.cell_graph_transformer import graph_loss as module
from torchcell.screen.models.cell_graph_transformer.graph_loss import GraphLoss, GraphTarget


def dense_bce(matrix, q_TD, k_TD, specials=1, covered=None):
    weight, covered = edges(matrix, covered)
    score = q_TD[specials:] @ k_TD[specials:].T / q_TD.shape[1] ** 0.5
    edge = weight > 0
    other = (covered & covered[:, None] & ~edge).fill_diagonal_(False)
    negative = softplus(score[other]).mean() if other.any() else 0
    return (softplus(-score[edge]).mean() + negative) / 2


@pytest.mark.parametrize("chunk", [1, 5, 512], ids="chunk={}".format)
@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
@pytest.mark.parametrize("mask", ["edges", "all", "half"])
def test_in_evaluation_equals_the_dense_form(monkeypatch, chunk, directed, mask):
    monkeypatch.setattr(module, "ROWS", chunk)
    matrix = network(directed=directed)
    covered = {"edges": None, "all": torch.ones(N, dtype=torch.bool), "half": torch.arange(N) % 4 != 2}[mask]
    term = GraphLoss(cell(matrix, directed), "r", "bce", covered=covered, specials=2).eval()
    q, k, _ = tensors(N + 2, WIDTH)
    assert not term.needs_lse
    assert_same(term(q, k), dense_bce(matrix, q, k, 2, covered), (q, k))


@pytest.mark.parametrize("pairs", [4096, 7], ids="pairs={}".format)
def test_in_training_it_is_right_on_average(monkeypatch, pairs):
    monkeypatch.setattr(module, "PAIRS", pairs)
    matrix = network()
    term = GraphLoss(cell(matrix), "r", "bce")
    q, k, _ = tensors(N + 1, WIDTH)
    torch.manual_seed(0)
    draws = torch.stack([term(q, k) for _ in range(400)]).detach()
    wanted = dense_bce(matrix, q, k)
    assert (draws.mean() - wanted).abs() < 4 * draws.std() / 400**0.5
    torch.manual_seed(0)
    value = term(q, k)
    assert value == draws[0]
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(value, (q, k)))


@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
def test_drawn_edges_are_edges_and_the_others_are_none(monkeypatch, directed):
    matrix = network(directed=directed)
    target, (weight, covered) = GraphTarget(cell(matrix, directed), "r"), edges(matrix)
    row, column = module._edges(target)
    assert sorted(map(list, zip(row.tolist(), column.tolist(), strict=True))) == weight.nonzero().tolist()
    monkeypatch.setattr(module, "PAIRS", 20)
    assert (weight[module._edges(target)] > 0).all()
    row, column = module._other_pairs(target, 500)
    assert len(row) == 500
    assert (weight[row, column] == 0).all()
    assert (row != column).all()
    assert covered[row].all()
    assert covered[column].all()


@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
@pytest.mark.parametrize("share", [0.05, 0.5, 1])
def test_an_edge_is_found_by_binary_search(directed, share):
    matrix = network(share=share, directed=directed)
    target, (weight, _) = GraphTarget(cell(matrix, directed), "r"), edges(matrix)
    row, column = (each.ravel() for each in torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij"))
    assert (target.has_edge(row, column) == (weight[row, column] > 0)).all()


def test_a_complete_relation_has_no_other_pairs():
    matrix = np.ones((N, N), dtype=np.float32) - np.eye(N, dtype=np.float32)
    term = GraphLoss(cell(np.pad(matrix, (0, 1))), "r", "bce")
    q, k, _ = tensors(N + 2, WIDTH)
    wanted = dense_bce(np.pad(matrix, (0, 1)), q, k)
    torch.testing.assert_close(term(q, k), wanted, **TIGHT)
    torch.testing.assert_close(term.eval()(q, k), wanted, **TIGHT)
