"""The graph of a step: shares of edge types, links taken out, sampled like whole."""

from __future__ import annotations

import torch

from tests.knowledge_graph.test_typed_encoder import encoder
from torchcell.knowledge_graph.models.hgt_embedder.model import TypedEncoder
from torchcell.knowledge_graph.models.hgt_embedder.sampling import StepGraph, draw_edges
from torchcell.knowledge_graph.simulate import simulate_knowledge_graph
from torchcell.knowledge_graph.typed_graph import TypedGraph

GRAPH = TypedGraph.from_knowledge_graph(simulate_knowledge_graph(seed=1).graph)


def vectors(model: TypedEncoder, step: StepGraph, code: torch.Tensor, number: torch.Tensor, node: torch.Tensor):
    """Vectors of the nodes of the part, and the row of each node of the graph among them."""
    part, every = step.without(code, number, node), slice(None)
    degree_MR = model.degrees(part.whole)[every if part.node_M is None else part.node_M]
    z_MD = model(part.csrs, part.bounds, degree_MR, part.node_M)
    assert part.bounds[-1] == len(z_MD)
    return z_MD, part.row_N


def test_edges_are_drawn_once_by_share_and_never_too_many():
    sizes = [1000, 100, 10, 0]
    drawn = draw_edges(sizes, 111, 1.0, 0.5)
    assert [len(each) for each in drawn] == [100, 10, 1, 0]
    assert all(len(each.unique()) == len(each) for each in drawn)
    assert all(len(each) == 0 or int(each.max()) < size for each, size in zip(drawn, sizes, strict=True))
    assert [len(each) for each in draw_edges(sizes, 99, 0, 0.5)] == [33, 33, 5, 0]
    assert [len(each) for each in draw_edges(sizes, 0, 1.0, 0.5)] == [0, 0, 0, 0]


def test_a_sampled_part_with_wide_fans_gives_what_the_whole_gives():
    model = encoder(GRAPH, dropout=0.0)
    code, number = torch.tensor([1, 1, 0]), torch.tensor([0, 4, 2])
    node = torch.tensor([3, 150, 40, 3, 170])
    answers = []
    for fan_outs in (None, [10_000, 10_000]):
        z_MD, row_N = vectors(model, StepGraph(GRAPH, fan_outs), code, number, node)
        answers.append(z_MD[row_N[node]])
    torch.testing.assert_close(*answers)
    weights = GRAPH.weights_without(code, number)
    whole = model(GRAPH.csrs(weights), GRAPH.bounds, model.degrees(GRAPH.csrs(weights)))
    torch.testing.assert_close(answers[0], whole[node])


def test_narrow_fans_read_fewer_nodes_and_follow_the_seed():
    model, none = encoder(GRAPH), torch.zeros(0, dtype=torch.int64)
    part, found = StepGraph(GRAPH, [1, 1]), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        z_MD, row_N = vectors(model, part, none, none, torch.tensor([3, 150]))
        assert len(z_MD) <= 2 + 2 + 4
        found.append(z_MD[row_N[torch.tensor([3, 150])]])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
