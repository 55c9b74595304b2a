"""The sparse product equals the dense one, forward and backward, and makes nothing of size E x D."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.network import Network
from torchcell.nn.sparse import spmm


@pytest.fixture
def graph() -> CellGraph:
    rng = np.random.default_rng(0)
    genes = np.array([f"g{i}" for i in range(30)])  # g20 to g29 have no edges
    source, target = genes[rng.integers(0, 20, 100)], genes[rng.integers(0, 20, 100)]
    net = Network("net", source, target, rng.random(100).astype(np.float32), directed=True)
    return CellGraph.from_networks([net], genes=genes.tolist())


def test_equals_the_dense_product(graph):
    x_ND = torch.randn(30, 4, dtype=torch.float64)
    dense = torch.from_numpy(graph.scipy("net").toarray()).double()
    torch.testing.assert_close(spmm(graph, "net", x_ND), dense @ x_ND, rtol=0, atol=1e-12)


def test_gradient_equals_the_numerical_one(graph):
    x_ND = torch.randn(30, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: spmm(graph, "net", x), x_ND)


def test_a_gene_without_edges_receives_zero(graph):
    assert spmm(graph, "net", torch.ones(30, 2))[20:].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_given_back_as_it_came(graph, dtype):
    x_ND = torch.randn(30, 4, dtype=dtype, requires_grad=True)
    product = spmm(graph, "net", x_ND)
    product.sum().backward()
    assert product.dtype == dtype == x_ND.grad.dtype
    torch.testing.assert_close(product, spmm(graph, "net", x_ND.float()).to(dtype))


def test_it_runs_under_mixed_precision(graph):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert spmm(graph, "net", torch.randn(30, 4)).dtype == torch.float32
