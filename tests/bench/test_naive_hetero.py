"""What the benches compare with is itself right: against a dense formula and against the closures."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tests.graph.node_sets import lists, ragged, random_graph
from torchcell.graph.neighborhood import Closure, compute_bits, induced

FILE = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "naive_hetero.py"
SPEC = importlib.util.spec_from_file_location("naive_hetero", FILE)
naive = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(naive)

SETS = [[0, 3], [5], [1, 2, 7]]


def dense_state(graph, network, x, mask):
    """The masked layers on dense matrices, one sample; node type -> [n, d]."""
    state = x
    for by_relation, by_self in zip(network.by_relation, network.by_self, strict=True):
        state = {kind: h * mask[kind] for kind, h in state.items()}
        merged = {kind: by_self(h) for kind, h in state.items()}
        for name in graph.relations:
            source, target = graph.ends(name)
            matrix = torch.from_numpy(graph.scipy(name).toarray()).double()
            merged[target] = merged[target] + matrix @ by_relation[name](state[source])
        state = {kind: torch.relu(h) * mask[kind] for kind, h in merged.items()}
    return state


@pytest.mark.parametrize("hops", [None, 1])
def test_the_naive_network_is_its_formula_on_dense_matrices(hops):
    graph = random_graph(5)
    torch.manual_seed(0)
    network = naive.NaiveNetwork(4, 2, naive.edge_types(graph)).double()
    x = {kind: torch.randn(len(graph.names(kind)), 4, dtype=torch.float64) for kind in graph.node_types}
    node_sets = None if hops is None else [naive.khop_nodes(graph, genes, hops)[0] for genes in SETS]
    (batch,) = naive.NaiveLoader(graph, SETS, batch_size=3, node_sets=node_sets)
    pooled = network(x, batch)
    for i, genes in enumerate(SETS):
        seen = torch.zeros(graph.n_nodes, 1, dtype=torch.float64)
        seen[slice(None) if node_sets is None else node_sets[i]] = 1.0
        seen[genes] = 0.0
        mask = {kind: seen[graph.span(kind)] for kind in graph.node_types}
        state = dense_state(graph, network, x, mask)
        expected = sum(h.sum(0) / mask[kind].sum().clamp(min=1) for kind, h in state.items())
        torch.testing.assert_close(pooled[i], expected)


def test_every_sample_carries_all_edges_and_the_last_batch_is_what_is_left():
    graph = random_graph(1)
    batches = list(naive.NaiveLoader(graph, SETS, batch_size=2))
    assert [batch.num_graphs for batch in batches] == [2, 1]
    for relation, kind in naive.edge_types(graph).items():
        assert [batch[kind].edge_index.shape[1] for batch in batches] == [
            2 * graph.scipy(relation).nnz,
            graph.scipy(relation).nnz,
        ]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pygs_neighborhoods_are_those_of_the_closure_and_of_induced(k):
    graph = random_graph(2)
    node, ptr = Closure(torch.from_numpy(compute_bits(graph, k)), k, graph.hash).ragged(*ragged(SETS))
    for genes, nodes in zip(SETS, lists(node, ptr), strict=True):
        theirs, edges = naive.khop_nodes(graph, genes, k)
        assert theirs.tolist() == nodes
        sub = induced(graph, *ragged([nodes]))
        for relation in graph.relations:
            assert set(map(tuple, edges[relation].T.tolist())) == set(map(tuple, sub.edge_index(relation).T.tolist()))
