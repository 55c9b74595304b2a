from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from torchcell.io.errors import InputError
from torchcell.knowledge_graph.record import KnowledgeGraph
from torchcell.knowledge_graph.simulate import SimulatedGraph, simulate_knowledge_graph


@pytest.fixture(scope="module")
def simulated() -> SimulatedGraph:
    return simulate_knowledge_graph()


@pytest.fixture
def graph(simulated: SimulatedGraph) -> KnowledgeGraph:
    return simulated.graph


def small(edges: list[tuple[str, str, str]], directed: tuple[str, ...] = ()) -> KnowledgeGraph:
    nodes = pd.DataFrame({"id": ["g1", "g2", "g3", "d1"], "name": list("abcd"), "type": ["Gene"] * 3 + ["Drug"]})
    table = pd.DataFrame(edges, columns=["source", "edge_type", "target"])
    return KnowledgeGraph.from_tables(nodes, table, directed=directed)


def test_a_good_graph_passes_and_names_its_parts() -> None:
    graph = small([("g1", "GiG", "g2"), ("d1", "DbG", "g3")]).validate()
    assert graph.node_types == ("Drug", "Gene")
    assert graph.edge_types == ("DbG", "GiG")
    assert graph.sample_id.tolist() == ["g1|GiG|g2", "d1|DbG|g3"]
    assert graph.source_index.tolist() == [0, 3]
    assert graph.target_index.tolist() == [1, 2]
    assert graph.target.shape == (2, 1)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([("g1", "GiG", "g9")], "outside the node table .'g9'.*'g1.GiG.g9'"),
        ([("g9", "GiG", "g1")], "outside the node table .'g9'"),
        ([("g1", "GiG", "g2"), ("g1", "GiG", "g2")], "1 sample.s. with an edge that an earlier row has too"),
        ([("g1", "GiG", "g2"), ("g2", "GiG", "g1")], "earlier row has too, in either direction: 'g2.GiG.g1'"),
        ([("g1", "GiG", "g1")], "from a node to itself: 'g1.GiG.g1'"),
        ([("d1", "DbG", "g1"), ("g1", "DbG", "g2")], "'DbG' joins Drug-Gene and Gene-Gene"),
    ],
)
def test_bad_edges_are_refused_and_named(edges: list[tuple[str, str, str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(edges).validate()


def test_both_directions_of_a_directed_edge_type_are_two_edges() -> None:
    both = [("g1", "Gr>G", "g2"), ("g2", "Gr>G", "g1")]
    assert len(small(both, directed=("Gr>G",)).validate()) == 2
    with pytest.raises(InputError, match="in either direction"):
        small(both).validate()
    with pytest.raises(InputError, match="directed edge types without edges: 'Gx>G'"):
        small(both, directed=("Gr>G", "Gx>G")).validate()


def test_bad_nodes_are_refused(graph: KnowledgeGraph) -> None:
    with pytest.raises(InputError, match="node types without nodes: 'Pathway'"):
        replace(graph, node_types=(*graph.node_types, "Pathway")).validate()
    with pytest.raises(InputError, match="a node type that is not listed: 'Disease::0001'"):
        replace(graph, node_types=("Compound", "Gene")).validate()
    ids = graph.node_id.copy()
    ids[1] = ids[0]
    with pytest.raises(InputError, match="node ids used twice: 'Compound::0001'"):
        replace(graph, node_id=ids).validate()
    with pytest.raises(InputError, match="node_name has shape"):
        replace(graph, node_name=graph.node_name[1:]).validate()


def test_subset_keeps_the_nodes_and_the_chosen_edges(graph: KnowledgeGraph) -> None:
    _ = graph.sample_id, graph.source_index  # cached values must not follow into the subset
    index = np.array([5, 0, 9])
    part = graph.subset(index).validate()
    assert part.sample_id.tolist() == graph.sample_id[index].tolist()
    assert part.source_index.tolist() == graph.source_index[index].tolist()
    assert len(part.node_id) == len(graph.node_id)
    mask = graph.edge_type == "CtD"
    assert graph.subset(mask).edge_types == ("CtD",)


def test_round_trip_through_tables_with_other_column_names(graph: KnowledgeGraph) -> None:
    nodes, edges = graph.to_tables()
    nodes, edges = nodes.rename(columns={"id": "node"}), edges.rename(columns={"source": "head"})
    back = KnowledgeGraph.from_tables(
        nodes, edges, graph.name, {"id": "node", "source": "head"}, node_types=graph.node_types
    )
    for name in ("node_id", "node_name", "node_type", "source_id", "edge_type", "target_id"):
        np.testing.assert_array_equal(getattr(back, name), getattr(graph, name))
    assert back.node_types == graph.node_types
    with pytest.raises(InputError, match="no column 'id'"):
        KnowledgeGraph.from_tables(nodes, edges, columns={"source": "head"})
    with pytest.raises(InputError, match="no internal column 'heads'"):
        KnowledgeGraph.from_tables(nodes, edges, columns={"heads": "head"})


def test_planted_communities_and_paths_are_in_the_edges(simulated: SimulatedGraph) -> None:
    graph, community = simulated.graph, simulated.community
    same = community[graph.source_index] == community[graph.target_index]
    for edge_type in ("GiG", "CbG", "DaG"):
        assert same[graph.edge_type == edge_type].mean() == pytest.approx(0.9, abs=0.01)

    n = len(graph.node_id)
    binds, associates = np.zeros((n, n), dtype=int), np.zeros((n, n), dtype=int)
    for matrix, edge_type in ((binds, "CbG"), (associates, "DaG")):
        at = graph.edge_type == edge_type
        matrix[graph.source_index[at], graph.target_index[at]] = 1
    path = binds @ associates.T > 0
    treats = graph.edge_type == "CtD"
    joined = path[graph.source_index[treats], graph.target_index[treats]]
    compounds, diseases = (np.flatnonzero(graph.node_type == node_type) for node_type in ("Compound", "Disease"))
    assert joined.mean() > 0.9
    assert joined.mean() > 2 * path[np.ix_(compounds, diseases)].mean()


def test_ends_and_symmetric_edge_types_are_told_of_the_edges() -> None:
    graph = small([("g1", "GiG", "g2"), ("d1", "DbG", "g3"), ("g2", "Gr>G", "g3")], directed=("Gr>G",)).validate()
    assert graph.ends == {"DbG": ("Drug", "Gene"), "GiG": ("Gene", "Gene"), "Gr>G": ("Gene", "Gene")}
    assert graph.symmetric == {"GiG"}


def test_licences_are_read_by_name_and_follow_into_a_subset() -> None:
    nodes = pd.DataFrame({"id": ["a", "b"], "name": ["", ""], "type": ["X", "Y"]})
    edges = pd.DataFrame({"source": ["a"], "edge_type": ["XY"], "target": ["b"], "license": ["CC0"]})
    graph = KnowledgeGraph.from_tables(nodes, edges, columns={"licence": "license"}).validate()
    assert graph.subset(np.array([0])).licence.tolist() == ["CC0"]
    assert KnowledgeGraph.from_tables(nodes, edges).licence is None
    with pytest.raises(InputError, match="no column 'licenc'; the nearest are .'license'"):
        KnowledgeGraph.from_tables(nodes, edges, columns={"licence": "licenc"})
