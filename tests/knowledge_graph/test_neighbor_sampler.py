"""Sampled parts of a knowledge graph: the whole neighborhood where the fan-out is large, few edges where not."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.knowledge_graph.random_typed import ENDS, knowledge_graph
from torchcell.knowledge_graph.typed_graph import NeighborSampler, SampledGraph, TypedGraph
from torchcell.nn.hgt import TypedHGT


def graph_of(seed: int, sizes=(12, 8, 20), density: float = 0.3) -> TypedGraph:
    return TypedGraph.from_knowledge_graph(knowledge_graph(seed, sizes, density, without=("CrC",)), ENDS)


def entries(bounds, relations, csrs, node) -> list[list[tuple[int, int, float]]]:
    """Source, target among all nodes of the graph, and weight, a relation."""
    found = []
    for relation, (indptr, indices, weight) in zip(relations, csrs, strict=True):
        row = torch.repeat_interleave(torch.arange(len(indptr) - 1), indptr.diff())
        source, target = node[indices + bounds[relation.source]], node[row + bounds[relation.target]]
        found.append(list(zip(source.tolist(), target.tolist(), weight.tolist(), strict=True)))
    return found


def sampled_entries(graph: TypedGraph, part: SampledGraph) -> list[list[tuple[int, int, float]]]:
    return entries(part.bounds, graph.relations, part.csrs, part.node_M)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000), st.sampled_from([1, 2, 3]))
def test_a_fan_out_above_every_degree_gives_the_whole_graphs_vectors_at_the_seeds(seed, hops):
    graph = graph_of(seed, density=0.1)
    torch.manual_seed(seed)
    node_types = [(r.source, r.target) for r in graph.relations]
    layers = [TypedHGT(4, node_types, len(graph.node_types), 2).double() for _ in range(hops)]
    x = torch.randn(len(graph), 4, dtype=torch.float64)
    seeds = torch.randint(len(graph), (3,))
    part = NeighborSampler(graph).sample(seeds, [1_000] * hops)
    whole, few = x, x[part.node_M]
    for layer in layers:
        whole, few = layer(whole, graph.bounds, graph.csrs()), layer(few, part.bounds, part.csrs)
    torch.testing.assert_close(few[part.seed_position_S], whole[seeds], rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000), st.integers(0, 6), st.integers(0, 6))
def test_the_part_holds_true_edges_within_its_nodes_and_no_more_a_node_than_its_fan_out(seed, first, second):
    graph = graph_of(seed)
    torch.manual_seed(seed)
    seeds = torch.randint(len(graph), (4,))
    part = NeighborSampler(graph).sample(seeds, [first, second])
    assert part.node_M.tolist() == sorted(set(part.node_M.tolist()))
    assert (part.node_M[part.seed_position_S] == seeds).all()
    for number, (a, b) in enumerate(itertools.pairwise(part.bounds)):
        inside = part.node_M[a:b]
        assert ((inside >= graph.bounds[number]) & (inside < graph.bounds[number + 1])).all()
    true = entries(graph.bounds, graph.relations, graph.csrs(), torch.arange(len(graph)))
    into: dict[int, int] = {}
    for found, there in zip(sampled_entries(graph, part), true, strict=True):
        assert len(found) == len(set(found))
        assert set(found) <= set(there)
        assert found == sorted(found, key=lambda each: (each[1], each[0]))
        for _, target, _ in found:
            into[target] = into.get(target, 0) + 1
    near = set(seeds.tolist())
    assert all(count <= (first if node in near else second) for node, count in into.items())
    degree = {node: sum(t == node for there in true for _, t, _ in there) for node in near}
    assert all(into.get(node, 0) == degree[node] for node in near if degree[node] <= first)


def test_draws_are_even_over_all_relations_together():
    graph = graph_of(5, (30, 20, 60), 0.5)
    sampler, counts = NeighborSampler(graph), torch.zeros(len(graph.relations))
    gene = torch.tensor([graph.bounds[2]])
    degree = torch.tensor([float(csr.indptr[1] - csr.indptr[0]) if r.target == 2 else 0.0
                           for r, csr in zip(graph.relations, graph.csrs(), strict=True)])  # fmt: skip
    torch.manual_seed(0)
    for _ in range(2_000):
        counts += torch.tensor([float(len(csr.indices)) for csr in sampler.sample(gene, [1]).csrs])
    assert counts.sum() == 2_000
    torch.testing.assert_close(counts / 2_000, degree / degree.sum(), rtol=0, atol=0.05)


def test_same_seed_same_part_and_the_global_seed_counts_without_a_generator():
    graph = graph_of(1, density=0.6)
    sampler, seeds = NeighborSampler(graph), torch.tensor([0, 5, 5])
    drawn = [sampler.sample(seeds, [3, 3], torch.Generator().manual_seed(n)) for n in (0, 0, 1)]
    for n in (2, 2):
        torch.manual_seed(n)
        drawn.append(sampler.sample(seeds, [3, 3]))
    told = [sampled_entries(graph, part) for part in drawn]
    assert told[0] == told[1] != told[2]
    assert told[3] == told[4]


def test_edges_taken_out_of_the_graph_have_weight_0_in_a_part():
    graph = graph_of(2)
    code = torch.full((5,), graph.edge_types.index("GiG"))
    gone = torch.tensor([0, 3, 4, 7, 8])
    source, target = (end[gone] for end in graph.edges("GiG"))
    out = set(zip(source.tolist(), target.tolist(), strict=True))
    weights = graph.weights_without(code, gone)
    part = NeighborSampler(graph).sample(torch.arange(len(graph)), [1_000], weights=weights)
    for relation, found in zip(graph.relations, sampled_entries(graph, part), strict=True):
        for s, t, weight in found:
            barred = relation.edge_type == "GiG" and ((s, t) in out or (t, s) in out)
            assert weight == (0.0 if barred else 1.0)


@pytest.mark.parametrize("fan_outs", [[], [0], [2, 0]])
def test_a_part_without_edges_is_still_a_graph(fan_outs):
    graph = graph_of(3)
    part = NeighborSampler(graph).sample(torch.tensor([4]), fan_outs[:1] if fan_outs == [0] else fan_outs)
    assert part.bounds[-1] == len(part.node_M)
    assert 4 in part.node_M.tolist()
    assert all(int(csr.indptr[-1]) == len(csr.indices) for csr in part.csrs)
