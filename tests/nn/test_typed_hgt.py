"""The layer on a knowledge graph against PyG's ``HGTConv`` with equal weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch_geometric.nn import HGTConv

from tests.knowledge_graph.random_typed import ENDS, knowledge_graph
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.typed_graph import TypedGraph
from torchcell.nn import sparse as edge_softmax
from torchcell.nn.hgt import TypedHGT

D, HEADS = 8, 2
WIDTH = D // HEADS


def setting(seed: int = 0, without: tuple[str, ...] = ("CtD",)) -> tuple[TypedGraph, TypedHGT, torch.Tensor]:
    """By default ``CtD`` has no edges, but its two relations stand."""
    torch.manual_seed(seed)
    graph = TypedGraph.from_knowledge_graph(knowledge_graph(seed, without=without), ENDS)
    layer = TypedHGT(
        D, [(r.source, r.target) for r in graph.relations], len(graph.node_types), HEADS, norm=False
    ).double()
    for parameter in (layer.gate, layer.prior, layer.project_bias, layer.out_bias):
        torch.nn.init.normal_(parameter)
    return graph, layer, torch.randn(len(graph), D, dtype=torch.float64, requires_grad=True)


def edge_types(graph: TypedGraph) -> list[tuple[str, str, str]]:
    return [
        (graph.node_types[r.source], r.name.replace("<", "_back"), graph.node_types[r.target]) for r in graph.relations
    ]


def edge_index(graph: TypedGraph, number: int) -> torch.Tensor:
    indptr, indices, _ = graph.csr(number)
    row = torch.repeat_interleave(torch.arange(len(indptr) - 1), indptr.diff())
    return torch.stack([indices.long(), row])


def with_equal_weights(graph: TypedGraph, layer: TypedHGT) -> HGTConv:
    """PyG's layer; a relation and head r, h is number h x R + r there."""
    conv = HGTConv(D, D, (list(graph.node_types), edge_types(graph)), HEADS).double()
    with torch.no_grad():
        for node_type, name in enumerate(graph.node_types):
            query, key, value = layer.project[node_type].chunk(3, 1)
            conv.kqv_lin.lins[name].weight.copy_(torch.cat([key, query, value], 1).T)
            query, key, value = layer.project_bias[node_type].chunk(3)
            conv.kqv_lin.lins[name].bias.copy_(torch.cat([key, query, value]))
            conv.out_lin.lins[name].weight.copy_(layer.out[node_type].T)
            conv.out_lin.lins[name].bias.copy_(layer.out_bias[node_type])
            conv.skip[name].copy_(layer.gate[node_type : node_type + 1])
        conv.k_rel.weight.copy_(layer.attend.transpose(0, 1).flatten(0, 1))
        conv.v_rel.weight.copy_(layer.send.transpose(0, 1).flatten(0, 1))
        for number, each in enumerate(edge_types(graph)):
            conv.p_rel["__".join(each)].copy_(layer.prior[number : number + 1])
    return conv


def run_conv(graph: TypedGraph, conv: HGTConv, x: torch.Tensor) -> dict[str, torch.Tensor]:
    by_type = {k: x[a:b] for k, (a, b) in zip(graph.node_types, itertools.pairwise(graph.bounds), strict=True)}
    # In metadata order: PyG's answer depends on it, and is wrong in another order.
    return conv(by_type, {each: edge_index(graph, number) for number, each in enumerate(edge_types(graph))})


@pytest.mark.parametrize("without", [("CtD",), (), ("CtD", "DaG")], ids=str)
@pytest.mark.parametrize("chunk", [7, None])
def test_equals_hgtconv_in_value_and_gradient(monkeypatch, without, chunk):
    """Without CtD and DaG no edge enters a disease: what it hears is nothing, and its bias speaks alone."""
    monkeypatch.setattr(edge_softmax, "CHUNK", chunk)
    graph, layer, x = setting(1, without)
    conv = with_equal_weights(graph, layer)
    ours = layer(x, graph.bounds, graph.csrs())
    theirs = torch.cat([run_conv(graph, conv, x)[node_type] for node_type in graph.node_types])
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    seed = torch.randn_like(ours)
    mine = [x, layer.attend, layer.send, layer.prior, layer.project, layer.out, layer.gate]
    mine = torch.autograd.grad((ours * seed).sum(), mine)
    lins = [conv.kqv_lin.lins[node_type].weight for node_type in graph.node_types] + [
        conv.out_lin.lins[node_type].weight for node_type in graph.node_types
    ]
    priors = [conv.p_rel["__".join(each)] for each in edge_types(graph)]
    skips = [conv.skip[node_type] for node_type in graph.node_types]
    inputs = [x, conv.k_rel.weight, conv.v_rel.weight, *lins, *priors, *skips]
    found = list(torch.autograd.grad((theirs * seed).sum(), inputs))
    n = len(graph.node_types)
    by_relation = [each.unflatten(0, (HEADS, -1)).transpose(0, 1) for each in found[1:3]]
    key, query, value = torch.stack(found[3 : 3 + n]).chunk(3, 1)
    reference = [
        found[0],
        *by_relation,
        torch.cat(found[3 + 2 * n : 3 + 2 * n + len(priors)]),
        torch.cat([query, key, value], 1).mT,
        torch.stack(found[3 + n : 3 + 2 * n]).mT,
        torch.cat(found[3 + 2 * n + len(priors) :]),
    ]
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_edges_of_weight_0_are_as_good_as_gone():
    graph, layer, x = setting(2, ())
    record = knowledge_graph(2, without=())
    without = TypedGraph.from_knowledge_graph(record.subset(record.edge_type != "CtD"), ENDS)
    code = torch.full((graph.n_edges("CtD"),), graph.edge_types.index("CtD"))
    weights = graph.weights_without(code, torch.arange(len(code)))
    torch.testing.assert_close(
        layer(x, graph.bounds, graph.csrs(weights)), layer(x, without.bounds, without.csrs()), rtol=1e-12, atol=1e-12
    )


def test_a_fixed_residual_keeps_that_share_of_the_input():
    graph, _, x = setting(3)
    node_types = [(r.source, r.target) for r in graph.relations]
    layers = [TypedHGT(D, node_types, 3, HEADS, norm=False, residual=share).double() for share in (0.0, 0.25)]
    layers[1].load_state_dict(layers[0].state_dict())
    nothing, quarter = (layer(x, graph.bounds, graph.csrs()) for layer in layers)
    torch.testing.assert_close(quarter, 0.75 * nothing + 0.25 * x)
    assert "gate" not in dict(layers[0].named_parameters())


def test_every_parameter_gets_a_gradient():
    graph, layer, x = setting()
    layer(x, graph.bounds, graph.csrs()).square().sum().backward()
    assert not [name for name, parameter in layer.named_parameters() if parameter.grad is None]


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match="6 features do not divide into 4 heads"):
        TypedHGT(6, [(0, 0)], 1, heads=4)


def test_repr_and_shape():
    graph, layer, x = setting()
    assert repr(layer) == "TypedHGT(8, heads=2, relations=8, types=3)"
    assert layer(x, graph.bounds, graph.csrs()).shape == x.shape
