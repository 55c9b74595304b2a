"""The heterogeneous graph transformer against the formula written out node by node."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.screen.offset_cells import edges, kinds
from tests.screen.test_perturbed_cell import random_graph
from torchcell.io.errors import InputError
from torchcell.nn.hgt import HGT
from torchcell.nn.relations import Cell, RelationStack

D, HEADS = 6, 2


def setting():
    torch.manual_seed(0)
    graph = random_graph(np.random.default_rng(0), 8, hetero=True)
    stack = RelationStack(graph, graph.relations)
    cell = Cell([(stack.csr(r), stack.csr(r, True)) for r in range(len(stack))], kinds(graph))
    layer = HGT(D, len(stack), len(graph.node_types), HEADS, norm=False).double()
    torch.nn.init.normal_(layer.gate)
    torch.nn.init.normal_(layer.prior)
    return graph, cell, layer, torch.randn(graph.n_nodes, D, dtype=torch.float64)


def by_hand(graph, layer, x, kind):
    """One target at a time, one edge at a time."""
    q, k, v = (
        torch.stack([x[i] @ layer.project[kind[i]] for i in range(len(x))]).view(-1, 3, HEADS, D // HEADS).unbind(1)
    )
    arrived = [[] for _ in x]
    for r, relation in enumerate(graph.relations):
        for source, target, weight in zip(*edges(graph, relation), strict=True):
            key = torch.einsum("hd,hde->he", k[source], layer.attend[r]) * layer.prior[r][:, None]
            score = (q[target] * key).sum(-1) / (D // HEADS) ** 0.5 + weight.log()
            arrived[target].append((score, torch.einsum("hd,hde->he", v[source], layer.send[r])))
    rows = []
    for i in range(len(x)):
        heard = torch.zeros(D, dtype=x.dtype)
        if arrived[i]:
            share = torch.stack([score for score, _ in arrived[i]]).softmax(0)
            heard = torch.einsum("eh,ehd->hd", share, torch.stack([m for _, m in arrived[i]])).flatten()
        gate = layer.gate[kind[i]].sigmoid()
        rows.append(gate * (torch.nn.functional.gelu(heard) @ layer.out[kind[i]]) + (1 - gate) * x[i])
    return torch.stack(rows)


def test_equals_the_formula_node_by_node():
    graph, cell, layer, x = setting()
    torch.testing.assert_close(layer(x, cell), by_hand(graph, layer, x, kinds(graph)), rtol=1e-9, atol=1e-9)


def test_every_parameter_gets_a_gradient():
    _, cell, layer, x = setting()
    layer(x, cell).square().sum().backward()
    assert not [name for name, parameter in layer.named_parameters() if parameter.grad is None]


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match="6 features do not divide into 4 heads"):
        HGT(6, 1, 1, heads=4)


def test_repr_and_shape():
    _, cell, layer, x = setting()
    assert repr(layer).startswith("HGT(6, heads=2, relations=5, types=3")
    assert layer(x, cell).shape == x.shape
