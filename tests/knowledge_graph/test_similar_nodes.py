"""Similar nodes of a message graph against sets of neighbors."""

from __future__ import annotations

import pytest

from torchcell.knowledge_graph.models.hgt_embedder.losses import similar_nodes
from torchcell.knowledge_graph.simulate import simulate_knowledge_graph
from torchcell.knowledge_graph.typed_graph import TypedGraph


@pytest.mark.parametrize("node_type", [0, 1, 2])
def test_pairs_share_enough_neighbors_over_all_edge_types(node_type):
    graph = TypedGraph.from_knowledge_graph(simulate_knowledge_graph(seed=2).graph)
    neighbors = [set() for _ in range(len(graph))]
    for name in graph.edge_types:
        for i, j in zip(*(end.tolist() for end in graph.edges(name)), strict=True):
            neighbors[i].add(j)
            neighbors[j].add(i)
    first, last = graph.bounds[node_type : node_type + 2]
    expected = {
        (i - first, j - first)
        for i in range(first, last)
        for j in range(first, last)
        if i != j and len(neighbors[i] & neighbors[j]) > 0.2 * len(neighbors[i] | neighbors[j])
    }
    found = zip(*(end.tolist() for end in similar_nodes(graph, node_type, 0.2, most=1_000)), strict=True)
    assert set(found) == expected
    assert expected
