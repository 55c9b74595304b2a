"""The layers against PyG's own, and the merges against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch_geometric.nn import GINConv, RGCNConv, SAGEConv

from tests.screen.offset_cells import edges, kinds
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.nn.relations import Cell, RelationStack
from torchcell.screen.models.perturbed_cell_gnn.layers import RelationalLayer

N, D = 8, 4


@pytest.fixture
def graph() -> CellGraph:
    rng = np.random.default_rng(0)
    a, b = ((rng.random((N, N)) < 0.3) * 1.0 for _ in range(2))
    for matrix in (a, b):
        np.fill_diagonal(matrix, 0)
        matrix[-1] = 0
    return CellGraph([f"g{i}" for i in range(N)], {"a": sp.csr_matrix(a), "b": sp.csr_matrix(b)}, directed=["a", "b"])


def cell(graph: CellGraph, mean: bool) -> Cell:
    stack = RelationStack(graph, graph.relations, mean)
    return Cell([(stack.csr(r), stack.csr(r, True)) for r in range(2)], kinds(graph))


def edge_index(graph: CellGraph) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [edges(graph, relation)[:2] for relation in graph.relations]
    index = torch.cat([torch.stack(part) for part in parts], 1)
    return index, torch.repeat_interleave(torch.arange(2), torch.tensor([len(part[0]) for part in parts]))


@pytest.mark.parametrize("mean", [False, True])
def test_rgcn_equals_that_of_pyg(graph, mean):
    theirs = RGCNConv(D, D, 2, aggr="mean" if mean else "add")
    ours = RelationalLayer(D, 2, "rgcn", "sum", norm="none", residual=False, linear=True)
    with torch.no_grad():
        ours.message.copy_(theirs.weight)
        ours.own[0].copy_(theirs.root)
        ours.bias.normal_()
        theirs.bias.copy_(ours.bias)
    x = torch.randn(N, D)
    torch.testing.assert_close(ours(x, cell(graph, mean)), theirs(x, *edge_index(graph)))


def test_sage_is_the_sum_of_pygs_over_the_relations(graph):
    theirs = [SAGEConv(D, D, aggr="mean", bias=False) for _ in range(2)]
    ours = RelationalLayer(D, 2, "sage", "sum", norm="none", residual=False, linear=True)
    with torch.no_grad():
        ours.message.copy_(torch.stack([layer.lin_l.weight.T for layer in theirs]))
        ours.own.copy_(torch.stack([layer.lin_r.weight.T for layer in theirs]))
    x = torch.randn(N, D)
    wanted = sum(layer(x, torch.stack(edges(graph, r)[:2])) for layer, r in zip(theirs, "ab", strict=True))
    torch.testing.assert_close(ours(x, cell(graph, True)), wanted)


def test_gin_is_the_sum_of_pygs_over_the_relations(graph):
    ours = RelationalLayer(D, 2, "gin", "sum", norm="none", residual=False, linear=True)
    torch.nn.init.normal_(ours.epsilon)
    torch.nn.init.normal_(ours.first_bias)
    x, wanted = torch.randn(N, D), torch.zeros(N, D)
    for number, relation in enumerate(graph.relations):
        mlp = torch.nn.Sequential(torch.nn.Linear(D, D), torch.nn.ReLU(), torch.nn.Linear(D, D, bias=False))
        conv = GINConv(mlp, eps=ours.epsilon[number].item())  # it draws new weights for the MLP
        with torch.no_grad():
            mlp[0].weight.copy_(ours.first[number].T)
            mlp[0].bias.copy_(ours.first_bias[number, 0])
            mlp[2].weight.copy_(ours.second[number].T)
        wanted = wanted + conv(x, torch.stack(edges(graph, relation)[:2]))
    torch.testing.assert_close(ours(x, cell(graph, False)), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("aggregation", ["rgcn", "sage", "gin"])
@pytest.mark.parametrize("merge", ["sum", "mean", "attention", "pairwise"])
def test_every_parameter_gets_a_gradient(graph, aggregation, merge):
    layer = RelationalLayer(D, 2, aggregation, merge)
    layer(torch.randn(N, D), cell(graph, True)).square().sum().backward()
    assert not [name for name, parameter in layer.named_parameters() if parameter.grad is None]


def test_unknown_choices_are_named():
    with pytest.raises(InputError, match=r"aggregation='rgnc'.*rgcn"):
        RelationalLayer(D, 2, "rgnc")
    with pytest.raises(InputError, match=r"merge='avg'"):
        RelationalLayer(D, 2, merge="avg")


def test_repr_and_shape(graph):
    layer = RelationalLayer(D, 2)
    assert repr(layer).startswith("RelationalLayer(\n  4, relations=2, rgcn, merge=sum")
    assert layer(torch.randn(N, D), cell(graph, True)).shape == (N, D)
