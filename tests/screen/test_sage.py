"""The GraphSAGE layer against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from torchcell.graph.cell_graph import CellGraph
from torchcell.screen.models.dango import SAGE, neighbor_mean


@pytest.fixture
def graph() -> CellGraph:
    """Six genes, one of them alone, directed edges of unequal weight."""
    weight = np.zeros((6, 6))
    for i, j, w in [(0, 1, 0.5), (0, 2, 1.5), (1, 0, 2.0), (2, 3, 1.0), (3, 4, 0.1), (4, 0, 1.0)]:
        weight[i, j] = w
    return CellGraph([f"g{i}" for i in range(6)], {"r": sp.csr_matrix(weight)}, directed=["r"])


def test_repr_and_shape(graph):
    layer = SAGE(5, 7)
    assert repr(layer).startswith("SAGE(\n  5, 7")
    assert layer(graph, "r", torch.randn(6, 5)).shape == (6, 7)


def test_mean_is_over_true_neighbors_and_zero_without_any(graph):
    x = torch.randn(6, 5)
    mean = neighbor_mean(graph, "r", x)
    torch.testing.assert_close(mean[0], 0.25 * x[1] + 0.75 * x[2])
    torch.testing.assert_close(mean[1], x[0])
    torch.testing.assert_close(mean[3], x[4])
    assert (mean[5] == 0).all()


def test_equals_dense_layer_in_value_and_gradient(graph):
    layer, x = SAGE(5, 7).double(), torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    dense = torch.from_numpy(graph.scipy("r").toarray()).double()
    dense = dense / dense.sum(1, keepdim=True).clamp(min=1e-30)
    naive = x @ layer.own.weight.T + layer.own.bias + dense @ x @ layer.neighbors.weight.T
    torch.testing.assert_close(layer(graph, "r", x), naive)
    leaves = [x, *layer.parameters()]
    upstream = torch.randn(6, 7, dtype=torch.float64)
    ours = torch.autograd.grad(layer(graph, "r", x), leaves, upstream)
    theirs = torch.autograd.grad(naive, leaves, upstream)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_reset_parameters_draws_new_weights():
    layer = SAGE(3, 3)
    before = layer.neighbors.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(before, layer.neighbors.weight)
