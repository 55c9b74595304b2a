from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchcell.data.errors import InputError
from torchcell.data.knowledge_graph import KnowledgeGraph
from torchcell.data.links import link_samples
from torchcell.data.simulate_knowledge_graph import SimulatedGraph, simulate_knowledge_graph


@pytest.fixture(scope="module")
def simulated() -> SimulatedGraph:
    return simulate_knowledge_graph()


@pytest.fixture
def graph(simulated: SimulatedGraph) -> KnowledgeGraph:
    return simulated.graph


def small(edges: list[tuple[str, str, str]], directed: tuple[str, ...] = ()) -> KnowledgeGraph:
    nodes = pd.DataFrame({"id": ["g1", "g2", "g3", "d1"], "name": list("abcd"), "kind": ["Gene"] * 3 + ["Drug"]})
    table = pd.DataFrame(edges, columns=["source", "metaedge", "target"])
    return KnowledgeGraph.from_tables(nodes, table, directed=directed)


def test_a_good_graph_passes_and_names_its_parts() -> None:
    graph = small([("g1", "GiG", "g2"), ("d1", "DbG", "g3")]).validate()
    assert graph.kinds == ("Drug", "Gene")
    assert graph.metaedges == ("DbG", "GiG")
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


def test_both_directions_of_a_directed_metaedge_are_two_edges() -> None:
    both = [("g1", "Gr>G", "g2"), ("g2", "Gr>G", "g1")]
    assert len(small(both, directed=("Gr>G",)).validate()) == 2
    with pytest.raises(InputError, match="in either direction"):
        small(both).validate()
    with pytest.raises(InputError, match="directed metaedges without edges: 'Gx>G'"):
        small(both, directed=("Gr>G", "Gx>G")).validate()


def test_bad_nodes_are_refused(graph: KnowledgeGraph) -> None:
    with pytest.raises(InputError, match="kinds without nodes: 'Pathway'"):
        replace(graph, kinds=(*graph.kinds, "Pathway")).validate()
    with pytest.raises(InputError, match="a kind that is not listed: 'Disease::0001'"):
        replace(graph, kinds=("Compound", "Gene")).validate()
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
    mask = graph.metaedge == "CtD"
    assert graph.subset(mask).metaedges == ("CtD",)


def test_round_trip_through_tables_with_other_column_names(graph: KnowledgeGraph) -> None:
    nodes, edges = graph.to_tables()
    nodes, edges = nodes.rename(columns={"id": "node"}), edges.rename(columns={"source": "head"})
    back = KnowledgeGraph.from_tables(nodes, edges, graph.name, {"id": "node", "source": "head"}, kinds=graph.kinds)
    for name in ("node_id", "node_name", "node_kind", "source_id", "metaedge", "target_id"):
        np.testing.assert_array_equal(getattr(back, name), getattr(graph, name))
    assert back.kinds == graph.kinds
    with pytest.raises(InputError, match="no column 'id'"):
        KnowledgeGraph.from_tables(nodes, edges, columns={"source": "head"})
    with pytest.raises(InputError, match="no internal column 'heads'"):
        KnowledgeGraph.from_tables(nodes, edges, columns={"heads": "head"})


def test_planted_communities_and_paths_are_in_the_edges(simulated: SimulatedGraph) -> None:
    graph, community = simulated.graph, simulated.community
    same = community[graph.source_index] == community[graph.target_index]
    for metaedge in ("GiG", "CbG", "DaG"):
        assert same[graph.metaedge == metaedge].mean() == pytest.approx(0.9, abs=0.01)

    n = len(graph.node_id)
    binds, associates = np.zeros((n, n), dtype=int), np.zeros((n, n), dtype=int)
    for matrix, metaedge in ((binds, "CbG"), (associates, "DaG")):
        at = graph.metaedge == metaedge
        matrix[graph.source_index[at], graph.target_index[at]] = 1
    path = binds @ associates.T > 0
    treats = graph.metaedge == "CtD"
    joined = path[graph.source_index[treats], graph.target_index[treats]]
    compounds, diseases = (np.flatnonzero(graph.node_kind == kind) for kind in ("Compound", "Disease"))
    assert joined.mean() > 0.9
    assert joined.mean() > 2 * path[np.ix_(compounds, diseases)].mean()


def test_link_samples_are_all_edges_and_distinct_non_edges(graph: KnowledgeGraph) -> None:
    links = link_samples(graph, "CtD", negatives_per_positive=3, seed=1).validate()
    positive = links.label[:, 0] == 1
    edges = graph.subset(graph.metaedge == "CtD")
    assert links.sample_id[positive].tolist() == edges.sample_id.tolist()
    assert (~positive).sum() == 3 * len(edges)
    assert not set(links.sample_id[~positive]) & set(edges.sample_id)
    assert set(graph.node_kind[links.source_index]) == {"Compound"}
    assert set(graph.node_kind[links.target_index]) == {"Disease"}
    again = link_samples(graph, "CtD", negatives_per_positive=3, seed=1)
    assert again.sample_id.tolist() == links.sample_id.tolist()
    other = link_samples(graph, "CtD", negatives_per_positive=3, seed=2)
    assert other.sample_id.tolist() != links.sample_id.tolist()


def test_an_undirected_edge_is_never_a_negative_in_its_other_direction(graph: KnowledgeGraph) -> None:
    links = link_samples(graph, "GiG", negatives_per_positive=4, negatives="uniform")
    low, high = np.sort(np.stack([links.source_index, links.target_index]), axis=0)
    assert len(set(zip(low.tolist(), high.tolist(), strict=True))) == len(links)
    assert (low < high).all()


def test_matched_negatives_hide_the_degree_that_uniform_ones_give_away() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    n = 60
    fame = np.linspace(0.02, 0.6, n)
    hit = np.argwhere(rng.random((n, n)) < fame[:, None] * fame)
    ids = [f"{kind}{i:02d}" for kind in "ab" for i in range(n)]
    nodes = pd.DataFrame({"id": ids, "name": ids, "kind": ["A"] * n + ["B"] * n})
    edges = pd.DataFrame({"source": [ids[i] for i in hit[:, 0]], "target": [ids[n + j] for j in hit[:, 1]]})
    graph = KnowledgeGraph.from_tables(nodes, edges.assign(metaedge="AB")).validate()
    degree = np.bincount(np.r_[graph.source_index, graph.target_index], minlength=2 * n)
    score = {}
    for negatives in ("matched", "uniform"):
        links = link_samples(graph, "AB", negatives=negatives)
        product = degree[links.source_index] * degree[links.target_index]
        score[negatives] = roc_auc_score(links.label[:, 0], product)
    assert score["uniform"] > 0.75
    assert score["matched"] < 0.6


def test_links_subset_and_their_errors(graph: KnowledgeGraph) -> None:
    links = link_samples(graph, "CbG")
    part = links.subset(np.array([3, 1]))
    assert part.sample_id.tolist() == links.sample_id[[3, 1]].tolist()
    assert part.target.tolist() == [[1.0], [1.0]]
    assert part.task == "binary"
    with pytest.raises(InputError, match=r"no metaedge 'CdG'; the nearest are .*'CbG'"):
        link_samples(graph, "CdG")
    with pytest.raises(InputError, match="lower negatives_per_positive"):
        link_samples(graph, "CtD", negatives_per_positive=1000)
    with pytest.raises(InputError, match="a label other than 0 or 1"):
        replace(links, label=links.label * 2).validate()
    with pytest.raises(InputError, match="outside the node table"):
        replace(links, target_index=links.target_index + 1000).validate()


@pytest.mark.mirror
def test_the_core_hetionet_passes_with_its_known_counts(mirror: Path) -> None:
    folder = mirror / "hetionet"
    nodes = pd.read_csv(folder / "hetionet-core-nodes.tsv.gz", sep="\t")
    edges = pd.read_csv(folder / "hetionet-core-edges.tsv.gz", sep="\t", usecols=["source", "metaedge", "target"])
    graph = KnowledgeGraph.from_tables(nodes, edges, "hetionet_core").validate()
    kinds = pd.Series(graph.node_kind).value_counts().to_dict()
    assert kinds == {"Gene": 16_582, "Pathway": 1_822, "Compound": 1_394, "Disease": 136}
    counts = pd.Series(graph.metaedge).value_counts()
    assert (counts["GiG"], counts["CtD"], counts["DrD"]) == (146_937, 755, 543)
