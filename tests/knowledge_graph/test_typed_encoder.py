"""The encoder of a knowledge graph: degrees of the graph it is given, the residual, collapse on purpose."""

from __future__ import annotations

import itertools

import pytest
import torch

from torchcell.io.errors import InputError
from torchcell.knowledge_graph.models.hgt_embedder.model import ConstantEncoder, EncoderOptions, TypedEncoder
from torchcell.knowledge_graph.simulate import simulate_knowledge_graph
from torchcell.knowledge_graph.typed_graph import TypedGraph


@pytest.fixture(scope="module")
def graph() -> TypedGraph:
    return TypedGraph.from_knowledge_graph(simulate_knowledge_graph(seed=1).graph)


def encoder(graph: TypedGraph, made: type[TypedEncoder] = TypedEncoder, **options) -> TypedEncoder:
    sizes = [last - first for first, last in itertools.pairwise(graph.bounds)]
    options = {"embedding_dim": 24, "dim": 32, "heads": 2, "dropout": 0.0, "residual": 0.2} | options
    return made(sizes, [(r.source, r.target) for r in graph.relations], EncoderOptions(**options))


def encoded(model: TypedEncoder, graph: TypedGraph, weights=None) -> torch.Tensor:
    csrs = graph.csrs(weights)
    return model(csrs, graph.bounds, model.degrees(csrs))


def test_degrees_are_counted_in_the_graph_that_is_given(graph):
    """An edge that was taken out must not be seen in the degree of its ends either."""
    model, code = encoder(graph), graph.edge_types.index("CtD")
    chosen = torch.arange(5)
    weights = graph.weights_without(torch.full((5,), code), chosen)
    for csrs, gone in ((graph.csrs(), False), (graph.csrs(weights), True)):
        counted = model.degrees(csrs).exp() - 1
        for number, relation in enumerate(graph.relations):
            source, target = graph.degree(relation.edge_type)
            expected = (source if relation.reverse else target).float()
            if gone and relation.edge_type == "CtD":
                ends = graph.edges("CtD")[0 if relation.reverse else 1][chosen]
                expected = expected - torch.bincount(ends, minlength=len(graph))
            first, last = graph.bounds[relation.target : relation.target + 2]
            expected[:first], expected[last:] = 0, 0
            torch.testing.assert_close(counted[:, number], expected, atol=1e-4, rtol=1e-5)


def test_a_missing_edge_is_read_nowhere(graph):
    model, code = encoder(graph), graph.edge_types.index("CtD")
    chosen = torch.arange(5)
    without = encoded(model, graph, graph.weights_without(torch.full((5,), code), chosen))
    source, target = (end.numpy() for end in graph.edges("CtD"))
    edges = {name: tuple(end.numpy() for end in graph.edges(name)) for name in graph.edge_types}
    edges["CtD"] = source[5:], target[5:]
    smaller = TypedGraph(
        graph.node_id,
        graph.node_name,
        graph.node_types,
        graph.bounds,
        graph.ends,
        edges,
        graph.symmetric,
        graph.from_record,
    )
    torch.testing.assert_close(without, encoded(model, smaller))
    assert not torch.allclose(without, encoded(model, graph))


def test_constant_inputs_without_a_residual_make_nodes_of_alike_degrees_one_point(graph):
    """The collapse that is made on purpose: all a node can be known by is how many edges of each relation it has."""
    options = {"degrees": False, "layers": 1}
    flat = encoded(encoder(graph, ConstantEncoder, residual=0, **options), graph)
    free = encoded(encoder(graph, residual=0.3, **options), graph)
    degree_NR = encoder(graph).degrees(graph.csrs())
    for first, last in itertools.pairwise(graph.bounds):
        _, group = degree_NR[first:last].unique(dim=0, return_inverse=True)
        for number in range(int(group.max()) + 1):
            same = flat[first:last][group == number]
            torch.testing.assert_close(same, same[:1].expand_as(same), atol=1e-4, rtol=1e-4)
        assert torch.pdist(free[first:last]).min() > 1


def test_the_residual_is_a_share_of_the_input(graph):
    model = encoder(graph, residual=0.25, layers=1)
    csrs = graph.csrs()
    first = model._first(graph.bounds, model.degrees(csrs), None)
    expected = 0.75 * model.layers[0](first, graph.bounds, csrs) + 0.25 * first
    torch.testing.assert_close(encoded(model, graph), expected)


@pytest.mark.parametrize("jump", [False, True])
def test_recomputation_changes_neither_value_nor_gradient(graph, jump):
    found = []
    for recompute in (False, True):
        torch.manual_seed(3)
        model = encoder(graph, jump=jump, recompute=recompute, dropout=0.3)
        z = encoded(model, graph)
        z.square().sum().backward()
        found.append((z.detach(), [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(found[0], found[1])


def test_widths_are_exactly_as_configured(graph):
    """Elsewhere a width of 512 became 160 without a word."""
    model = encoder(graph, embedding_dim=512, dim=256, heads=8)
    assert model.embedding.weight.shape == (len(graph), 512)
    assert encoded(model, graph).shape == (len(graph), 256)


def test_bad_choices_are_refused(graph):
    for options, said in (
        ({"dim": 60, "heads": 4}, "model.encoder.dim=60 with model.encoder.heads=4.*16 or more"),
        ({"dim": 64, "heads": 5}, "divide"),
        ({"residual": 1}, "model.encoder.residual=1 .*1 left out"),
        ({"dropout": 1.5}, "model.encoder.dropout=1.5: must lie in 0 to 1"),
        ({"layers": 0, "dim": -1}, "model.encoder.dim=-1, model.encoder.layers=0: must be 1 or more"),
        ({"embedding_sd": 0}, "model.encoder.embedding_sd=0 must be above 0"),
    ):
        with pytest.raises(InputError, match=said):
            encoder(graph, **options)
