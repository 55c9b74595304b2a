"""Candidates: all edges, distinct non-edges of two kinds, labels in the outputs that they belong to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from torchcell.io.errors import InputError
from torchcell.knowledge_graph.record import KnowledgeGraph, Links, link_samples
from torchcell.knowledge_graph.simulate import simulate_knowledge_graph, simulated_links


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return simulate_knowledge_graph().graph


def test_samples_are_all_edges_and_distinct_non_edges_of_the_same_types(graph: KnowledgeGraph) -> None:
    links = link_samples(graph, "CtD", negatives_per_positive=2, seed=1).validate()
    edges = graph.subset(graph.edge_type == "CtD")
    assert links.sample_id[links.positive].tolist() == edges.sample_id.tolist()
    assert not set(links.sample_id[~links.positive]) & set(edges.sample_id)
    assert len(set(links.sample_id)) == len(links) == 5 * len(edges)
    assert set(graph.node_type[links.source_index]) == {"Compound"}
    assert set(graph.node_type[links.target_index]) == {"Disease"}


def test_a_negative_has_a_label_in_the_output_of_its_type_only(graph: KnowledgeGraph) -> None:
    links = link_samples(graph, ["DaG", "CtD"])
    assert links.outputs == ("DaG_matched", "DaG_uniform", "CtD_matched", "CtD_uniform")
    assert links.supervised == ("DaG", "CtD")
    n = {name: int((graph.edge_type == name).sum()) for name in links.supervised}
    held = ~np.isnan(links.label)
    for edge_type, columns in (("DaG", [0, 1]), ("CtD", [2, 3])):
        own = links.edge_type == edge_type
        assert not held[~own][:, columns].any()
        assert (links.label[own & links.positive][:, columns] == 1).all()
        negative = own & ~links.positive
        assert (held[negative][:, columns].sum(1) == 1).all()
        assert (links.label[negative] == 0).sum(0)[columns].tolist() == [n[edge_type]] * 2


def test_the_same_seed_gives_the_same_candidates_whatever_else_is_asked_for(graph: KnowledgeGraph) -> None:
    one, again, other = (link_samples(graph, "CtD", seed=seed).sample_id.tolist() for seed in (1, 1, 2))
    assert one == again != other
    every = link_samples(graph, "all", seed=1)
    assert every.supervised == graph.edge_types
    assert every.sample_id[every.edge_type == "CtD"].tolist() == one


def test_an_undirected_edge_is_never_a_negative_in_its_other_direction(graph: KnowledgeGraph) -> None:
    links = link_samples(graph, "GiG")
    low, high = np.sort(np.stack([links.source_index, links.target_index]), axis=0)
    assert len(set(zip(low.tolist(), high.tolist(), strict=True))) == len(links)
    assert (low < high).all()


def test_matched_negatives_hide_the_degree_that_uniform_ones_give_away() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    n = 60
    fame = np.linspace(0.02, 0.6, n)
    hit = np.argwhere(rng.random((n, n)) < fame[:, None] * fame)
    ids = [f"{node_type}{i:02d}" for node_type in "ab" for i in range(n)]
    nodes = pd.DataFrame({"id": ids, "name": ids, "type": ["A"] * n + ["B"] * n})
    edges = pd.DataFrame({"source": [ids[i] for i in hit[:, 0]], "target": [ids[n + j] for j in hit[:, 1]]})
    links = link_samples(KnowledgeGraph.from_tables(nodes, edges.assign(edge_type="AB")).validate(), "AB")
    degree = np.bincount(np.r_[links.graph.source_index, links.graph.target_index], minlength=2 * n)
    product = degree[links.source_index] * degree[links.target_index]
    score = {}
    for t, name in enumerate(links.outputs):
        held = ~np.isnan(links.label[:, t])
        score[name] = roc_auc_score(links.label[held, t], product[held])
    assert score["AB_uniform"] > 0.75
    assert score["AB_matched"] < 0.6


def test_a_subset_and_a_blind_copy_keep_the_graph(graph: KnowledgeGraph) -> None:
    links = link_samples(graph, "CbG")
    part = links.subset(np.array([3, 1]))
    assert part.sample_id.tolist() == links.sample_id[[3, 1]].tolist()
    assert part.target.tolist() == [[1.0, 1.0]] * 2
    assert part.graph is graph
    blind = links.blind().validate()
    assert np.isnan(blind.label).all()
    assert not blind.positive.any()
    assert blind.sample_id.tolist() == links.sample_id.tolist()


def test_both_directions_of_an_edge_are_twins_and_its_negatives_are_not() -> None:
    nodes = pd.DataFrame({"id": list("abcdefgh"), "name": list("abcdefgh"), "type": "X"})
    edges = pd.DataFrame(
        [("a", "X>X", "b"), ("b", "X>X", "a"), ("c", "X>X", "d")], columns=["source", "edge_type", "target"]
    )
    links = link_samples(KnowledgeGraph.from_tables(nodes, edges, directed=["X>X"]).validate(), "X>X")
    twins = links.duplicate_keys()
    assert twins[0] == twins[1] != twins[2]
    assert len(set(twins)) == len(links) - 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"edge_types": "CdG"}, r"no edge type 'CdG' with edges; the nearest are .*'CbG'"),
        ({"edge_types": ["CtD", "CtD"]}, "edge types used twice: 'CtD'"),
        ({"edge_types": []}, "no edge type to predict"),
        ({"edge_types": "CtD", "negatives_per_positive": 1000}, "lower negatives_per_positive"),
        ({"edge_types": "CtD", "negatives_per_positive": 0}, "must be 1 or more"),
    ],
)
def test_what_cannot_be_sampled_is_refused(graph: KnowledgeGraph, asked: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        link_samples(graph, **asked)


def test_bad_candidates_are_refused_and_named(graph: KnowledgeGraph) -> None:
    links = link_samples(graph, ["CtD", "CbG"])
    wrong = links.label.copy()
    wrong[0, 0] = 0.5
    stray = links.label.copy()
    stray[0, 2] = 1
    for change, message in (
        ({"label": wrong}, "1 sample.s. with a label other than 0 or 1"),
        ({"label": stray}, "a label of another edge type's output"),
        ({"positive": ~links.positive}, "a label that denies what `positive` says"),
        ({"target_index": links.target_index + 1000}, "outside the node table"),
        ({"edge_type": np.repeat("GiG", len(links))}, "an edge type outside"),
        ({"outputs": ("CtD", "CbG", "x", "y")}, "must be two an edge type"),
    ):
        with pytest.raises(InputError, match=message):
            replace(links, **change).validate()
    with pytest.raises(InputError, match="links used twice"):
        links.subset(np.array([0, 0])).validate()


def test_the_simulated_record_is_the_simulated_graph_with_candidates() -> None:
    links = simulated_links("CtD", n_genes=60, n_compounds=30, n_diseases=20, n_communities=5)
    assert isinstance(links.validate(), Links)
    assert len(links) == 3 * (links.graph.edge_type == "CtD").sum()
