"""A randomized network keeps every degree and every weight and loses its wiring."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from tests.graph.node_sets import random_graph
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.features import randomize
from torchcell.graph.network import GeneRules, Network
from torchcell.io.errors import InputError


def sparse_graph(n: int = 300, edges: int = 900, seed: int = 0) -> CellGraph:
    """An undirected and a directed network with hubs, each edge with a weight of its own."""
    rng = np.random.default_rng(seed)
    matrices = {}
    for name in ("physical", "regulatory"):
        popular = rng.pareto(2, n) + 0.1
        row, column = rng.choice(n, (2, edges), p=popular / popular.sum())
        edge = sp.coo_matrix((np.ones(edges), (row, column)), shape=(n, n)).tolil()
        edge.setdiag(0)
        matrix = sp.csr_matrix(edge)
        matrix = sp.csr_matrix(matrix + matrix.T) if name == "physical" else matrix
        upper = sp.triu(matrix) if name == "physical" else matrix
        upper = sp.csr_matrix(upper)
        upper.eliminate_zeros()
        upper.data = rng.permutation(upper.nnz) + 1.0
        matrices[name] = upper + upper.T if name == "physical" else upper
    return CellGraph([f"g{i}" for i in range(n)], matrices, ["regulatory"])


def degrees(matrix: sp.csr_matrix) -> tuple[list[int], list[int]]:
    return np.diff(matrix.tocsr().indptr).tolist(), np.diff(matrix.tocsc().indptr).tolist()


def shared(a: sp.csr_matrix, b: sp.csr_matrix) -> float:
    """Share of a's edges that b has."""
    return a.astype(bool).multiply(b.astype(bool)).nnz / a.nnz


@pytest.mark.parametrize("relation", ["physical", "regulatory"])
@pytest.mark.parametrize("seed", range(3))
def test_degrees_and_weights_stay_exactly(relation, seed):
    graph = sparse_graph(seed=seed)
    before, after = graph.scipy(relation), randomize(graph, seed=seed).scipy(relation)
    assert degrees(after) == degrees(before)
    assert sorted(after.data) == sorted(before.data)  # an edge made twice would have summed two weights
    assert not after.diagonal().any()


def test_an_undirected_relation_stays_symmetric():
    after = randomize(sparse_graph()).scipy("physical")
    assert (after != after.T).nnz == 0


@pytest.mark.parametrize("relation", ["physical", "regulatory"])
def test_nearly_all_edges_of_a_sparse_network_change(relation):
    graph = sparse_graph(n=2000, edges=3000)
    assert shared(graph.scipy(relation), randomize(graph).scipy(relation)) < 0.1


def test_each_edge_of_a_directed_relation_keeps_its_source_and_takes_its_weight_along():
    graph = sparse_graph()
    before, after = graph.scipy("regulatory").tocoo(), randomize(graph).scipy("regulatory").tocoo()
    assert dict(zip(after.data, after.row, strict=True)) == dict(zip(before.data, before.row, strict=True))


def test_rewiring_is_uniform_where_all_networks_of_these_degrees_can_be_listed():
    """Three edges among six genes of degree 1: 15 perfect matchings, each as likely as the others."""
    path = sp.coo_matrix((np.ones(3), ([0, 2, 4], [1, 3, 5])), shape=(6, 6)).tocsr()
    graph = CellGraph(list("abcdef"), {"net": path + path.T})
    counts: dict[bytes, int] = {}
    for seed in range(600):
        key = randomize(graph, seed=seed).scipy("net").indices.tobytes()
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 15
    assert sum((count - 40) ** 2 / 40 for count in counts.values()) < 36.1  # chi-squared, 14 degrees, p = 0.001


def test_the_same_seed_gives_the_same_graph_and_another_seed_another():
    graph = sparse_graph()
    assert randomize(graph, seed=4).hash == randomize(graph, seed=4).hash
    assert randomize(graph, seed=4).hash != randomize(graph, seed=5).hash


def test_a_relation_comes_out_the_same_alone_and_among_others():
    graph = sparse_graph()
    alone, together = randomize(graph, ["regulatory"]), randomize(graph)
    assert (alone.scipy("regulatory") != together.scipy("regulatory")).nnz == 0
    assert (alone.scipy("physical") != graph.scipy("physical")).nnz == 0


@pytest.mark.parametrize("seed", range(5))
def test_networks_that_reach_other_nodes_are_left_alone(seed):
    graph = random_graph(seed)
    after = randomize(graph)
    assert (after.relations, after.directed, after.node_types) == (graph.relations, graph.directed, graph.node_types)
    for relation in graph.relations:
        assert after.ends(relation) == graph.ends(relation)
        assert degrees(after.scipy(relation)) == degrees(graph.scipy(relation))
        if graph.ends(relation) != ("gene", "gene"):
            assert (after.scipy(relation) != graph.scipy(relation)).nnz == 0


def test_gene_rules_are_kept():
    rules = GeneRules.parse("reaction", {"r1": "a"})
    ones = np.ones(1, dtype=np.float32)
    catalyses = Network("catalyses", np.array(["a"]), np.array(["r1"]), ones, True, target_type="reaction")
    physical = Network("physical", np.array(["a", "c"]), np.array(["b", "d"]), np.ones(2, dtype=np.float32), False)
    graph = CellGraph.from_networks([catalyses, physical], rules=rules)
    assert randomize(graph).rules is rules


def test_an_edge_of_a_gene_to_itself_stays_and_none_is_made():
    edges = sp.csr_matrix(np.diag([3.0, 0, 0, 0, 0, 0]) + np.eye(6, k=1) + np.eye(6, k=-1))
    for directed in ([], ["net"]):
        after = randomize(CellGraph(list("abcdef"), {"net": edges}, directed)).scipy("net")
        assert after.diagonal().tolist() == [3, 0, 0, 0, 0, 0]
        assert degrees(after) == degrees(edges)


@pytest.mark.parametrize("edges", [1, 3])
def test_a_star_or_a_single_edge_cannot_be_rewired_and_comes_back(edges):
    star = sp.coo_matrix((np.ones(edges), (np.zeros(edges, int), np.arange(1, edges + 1))), shape=(4, 4)).tocsr()
    graph = CellGraph(list("abcd"), {"net": star + star.T})
    assert randomize(graph).hash == graph.hash


def test_what_cannot_be_rewired_is_refused():
    with pytest.raises(InputError, match="catalyses joins.*only those among genes"):
        randomize(random_graph(0), ["catalyses"])
    with pytest.raises(InputError, match="no relation 'phsical'.*physical"):
        randomize(random_graph(0), ["phsical"])
    lopsided = CellGraph(["a", "b"], {"net": sp.csr_matrix([[0, 1], [0, 0]])})
    with pytest.raises(InputError, match="net is not symmetric"):
        randomize(lopsided)
