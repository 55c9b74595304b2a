"""What holds for all baselines of ``conf/baselines/links.yaml``, and for the walks and degrees below them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score

from torchcell.core.predictor import Predictor
from torchcell.io.errors import InputError
from torchcell.knowledge_graph import baselines as typed_counts
from torchcell.knowledge_graph.baselines import (
    Choice,
    CommonNeighbors,
    DegreeProduct,
    NearestSources,
    OwnEdges,
    PathCounts,
    Steps,
    by_rows,
)
from torchcell.knowledge_graph.baselines_learned import EdgeDraws, PathFeatures
from torchcell.knowledge_graph.record import KnowledgeGraph, Links, link_samples
from torchcell.knowledge_graph.simulate import simulate_knowledge_graph

CONFIGS = OmegaConf.load(Path(__file__).parents[2] / "conf/baselines/links.yaml")
NAMES = [str(name) for name in CONFIGS]


def assign_folds(links: Links, seed: int = 0) -> tuple[Links, Links, Links]:
    """70, 15 and 15 percent; the edges of val and test leave the graph."""
    part = np.random.default_rng(seed).choice(3, len(links), p=[0.7, 0.15, 0.15])
    held_out = links.subset(links.positive & (part > 0)).sample_id
    seen = links.graph.subset(~np.isin(links.graph.sample_id, held_out))
    parts = [replace(links.subset(part == i), graph=seen) for i in range(3)]
    return parts[0], parts[1], parts[2]


@pytest.fixture(scope="module")
def planted() -> tuple[Links, Links, Links]:
    """CtD and GiG of a simulated graph: one edge type between two node types, one within a node type without direction."""
    return assign_folds(link_samples(simulate_knowledge_graph(150, 80, 40, noise=0.05, seed=1).graph, ["CtD", "GiG"]))


@pytest.fixture(scope="module")
def fitted(planted) -> dict[str, Predictor]:
    return {name: quick(name).fit(planted[0], planted[1], None) for name in NAMES}


def quick(name: str) -> Predictor:
    changes = {
        "distmult": {"adam": {"steps": 200, "check_every": 50, "batch_size": 256}},
        "stack": {"penalties": [10.0], "most_edges": 200, "negatives": 10},
    }
    return instantiate(CONFIGS[name], **changes.get(name, {}))


def toy(edges: list[str], directed: tuple[str, ...] = ()) -> KnowledgeGraph:
    """A graph from edges as ``c1 CbG g2``; the first letter of a node is its node type."""
    rows = [edge.split() for edge in edges]
    ids = np.array(sorted({node for source, _, target in rows for node in (source, target)}))
    source, edge_type, target = (np.array(column) for column in zip(*rows, strict=True))
    node_type = np.array([node[0] for node in ids.tolist()])
    node_types = tuple(np.unique(node_type).tolist())
    return KnowledgeGraph("toy", ids, ids, node_type, node_types, source, edge_type, target, directed).validate()


def of(graph: KnowledgeGraph, *pairs: str) -> Links:
    """Unlabeled candidates ``c1 CtD d2`` of a graph."""
    source, edge_type, target = (np.array(column) for column in zip(*(pair.split() for pair in pairs), strict=True))
    outputs = tuple(f"{name}_{negatives}" for name in np.unique(edge_type) for negatives in ("matched", "uniform"))
    label = np.full((len(pairs), len(outputs)), np.nan, dtype=np.float32)
    ends = (graph.index(source), graph.index(target))
    return Links("toy", graph, edge_type, *ends, label, outputs, np.zeros(len(pairs), dtype=bool))


GRAPH = toy(["c1 CtD d1", "c1 CtD d2", "c2 CtD d2", "c1 CbG g1", "c2 CbG g1", "c2 CbG g2",
             "d1 DaG g1", "d2 DaG g1", "d2 DaG g2", "g1 GiG g2", "g2 GiG g3", "d1 DrD d2"])  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_its_name_is_that_of_the_config(name: str) -> None:
    assert instantiate(CONFIGS[name]).name == name


@pytest.mark.parametrize("name", NAMES)
def test_test_labels_change_nothing_and_all_outputs_have_one_score(name, planted, fitted) -> None:
    test = planted[2]
    first = fitted[name].predict(test.blind())
    flipped = replace(test, label=1 - test.label, positive=~test.positive)
    assert first.dtype == np.float32
    assert first.shape == test.label.shape
    assert np.isfinite(first).all()
    assert first.tobytes() == fitted[name].predict(flipped).tobytes()
    assert (first == first[:, :1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_was_planted_is_found_and_a_fit_repeats(name, planted, fitted) -> None:
    test = planted[2]
    score = fitted[name].predict(test.blind())
    again = quick(name).fit(planted[0], planted[1], None).predict(test.blind())
    np.testing.assert_allclose(again, score, rtol=1e-5)
    aurocs = {}
    for column, of_output in enumerate(test.outputs):
        held = ~np.isnan(test.label[:, column])
        aurocs[of_output] = roc_auc_score(test.label[held, column], score[held, column])
    if name != "degree_product":  # degrees tell nothing of planted communities
        assert min(aurocs.values()) > {"path_features": 0.8}.get(name, 0.6), aurocs


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_candidates_and_of_the_ends_of_a_symmetric_edge_type_changes_nothing(
    name, planted, fitted
) -> None:
    test = planted[2]
    score = fitted[name].predict(test)
    order = np.random.default_rng(2).permutation(len(test))
    np.testing.assert_allclose(fitted[name].predict(test.subset(order)), score[order], rtol=1e-4, atol=1e-5)
    both = test.subset(test.edge_type == "GiG")
    turned = replace(both, source_index=both.target_index, target_index=both.source_index)
    np.testing.assert_allclose(fitted[name].predict(turned), fitted[name].predict(both), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_random_state_and_threads_of_the_caller_are_left_alone(name, planted) -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    quick(name).fit(planted[0], planted[1], None)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", NAMES)
def test_a_record_over_other_nodes_is_refused(name, planted, fitted) -> None:
    graph = planted[2].graph
    other = replace(graph, node_id=np.char.add("other ", graph.node_id))
    with pytest.raises(InputError, match="other nodes"):
        fitted[name].predict(replace(planted[2], graph=other))


@pytest.mark.parametrize("name", NAMES)
def test_nodes_are_found_by_id(name, planted, fitted) -> None:
    """A request comes in a checkpoint's order of nodes, which is not the record's."""
    record = planted[2].blind()
    n, graph = len(record.node_id), record.graph
    turned = replace(graph, node_id=graph.node_id[::-1].copy(), node_type=graph.node_type[::-1].copy())
    ends = n - 1 - record.source_index, n - 1 - record.target_index
    found = fitted[name].predict(replace(record, graph=turned, source_index=ends[0], target_index=ends[1]))
    assert found.tobytes() == fitted[name].predict(record).tobytes()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "stack"])  # three edges fill no inner folds
def test_a_node_without_edges_is_scored(name) -> None:
    graph = replace(GRAPH, node_id=np.append(GRAPH.node_id, "c9"), node_name=np.append(GRAPH.node_name, "c9"),
                    node_type=np.append(GRAPH.node_type, "c"))  # fmt: skip
    record = of(graph, "c1 CtD d1", "c2 CtD d1", "c9 CtD d1")
    label = np.array([[1, 1], [0, np.nan], [np.nan, 0]], dtype=np.float32)
    record = replace(record, label=label, positive=np.array([True, False, False]))
    baseline = instantiate(CONFIGS[name], **({"adam": {"steps": 3}} if name == "distmult" else {}))
    assert np.isfinite(baseline.fit(record, record.blind(), None).predict(record)).all()


def test_degree_product_is_the_formula() -> None:
    record = of(GRAPH, "c1 CtD d2", "c2 CtD d1", "g2 GiG g1")
    score = DegreeProduct().fit(record, record, None).predict(record)[:, 0]
    np.testing.assert_allclose(np.exp(score), [2.1 * 2.1, 1.1 * 1.1, 2.1 * 1.1], rtol=1e-6)


def test_common_neighbors_are_shared_genes_or_where_there_are_none_any_nodes() -> None:
    record = of(GRAPH, "c1 CtD d2", "c2 CtD d2", "g1 GiG g3", "d1 DrD d2", "c1 CbG g1")
    through_genes = CommonNeighbors("Gene").fit(record, record, None)
    assert through_genes.predict(record)[:2, 0].tolist() == [2, 2]  # any node type: here no node type is called Gene
    genes = CommonNeighbors("g").fit(record, record, None).predict(record)[:, 0]
    assert genes.tolist() == [1, 2, 1, 1, 0]


def test_nearest_sources_are_those_that_share_neighbors() -> None:
    graph = toy(["c1 CbG g1", "c2 CbG g1", "c3 CbG g2", "c4 CbG g3", "c2 CtD d1", "c3 CtD d2", "c4 CtD d2"])
    record = of(graph, "c1 CtD d1", "c1 CtD d2")
    score = NearestSources(powers=[1.0], priors=[0.01]).fit(record, record, None).predict(record)[:, 0]
    assert score[0] > score[1] + 2  # though d2 has the higher degree


@pytest.mark.parametrize("edge_type", ["CtD", "GiG"])
def test_votes_are_the_product_of_nearness_and_edges_from_either_end(edge_type, planted, fitted) -> None:
    baseline, steps = fitted["nearest_sources"], Steps.of(planted[0])
    first, last = steps.ends[edge_type]
    profile = baseline.profile[first].toarray()
    near = (profile @ profile.T) ** 2
    np.fill_diagonal(near, 0)
    expected = near @ steps.into[edge_type].toarray().T
    expected = expected + expected.T if edge_type == "GiG" else expected
    for few in (0, 1):  # three sources with all targets, then all sources with three targets
        sizes = [3 if end == few else steps.size[node_type] for end, node_type in enumerate((first, last))]
        source, target = (index.ravel() for index in np.indices(sizes))
        votes = baseline._votes(edge_type, 2.0, source, target)
        np.testing.assert_allclose(votes, expected[source, target], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_walks_are_products_of_matrices(damping, monkeypatch) -> None:
    steps = Steps.of(of(GRAPH, "c1 CtD d1"))
    walks, dense = PathCounts(steps, damping), {}
    for step, into in steps.into.items():
        rows, columns = (np.maximum(into.toarray().sum(axis), 1) ** -damping for axis in (1, 0))
        dense[step] = rows[:, None] * into.toarray() * columns
    paths = steps.metapaths("CtD", 3)
    assert ("CtD",) not in paths
    assert {("CbG", "DaG<"), ("CtD", "DrD"), ("CbG", "CbG<", "CtD"), ("CtD", "CtD<", "CtD")} <= set(paths)
    start, n_ends = np.array([1, 0]), steps.size[steps.ends["CtD"][1]]
    number, end = (index.ravel() for index in np.indices((2, n_ends)))
    for gather in (0, np.inf):  # all ends looked up, and all taken from the product
        monkeypatch.setattr(typed_counts, "GATHER", gather)
        for i, walked in walks.between(paths, start, number, end):
            expected = np.eye(2)[start].T
            for step in paths[i]:
                expected = dense[step] @ expected
            np.testing.assert_allclose(walked.reshape(2, n_ends).T, expected, rtol=1e-5)


@pytest.mark.parametrize("damping", [0.0, 0.5])
@pytest.mark.parametrize("edge_type", ["CtD", "GiG"])
@pytest.mark.parametrize("gather", [0, np.inf])
def test_walks_without_the_own_edge_are_those_in_the_graph_without_it(damping, edge_type, gather, monkeypatch) -> None:
    monkeypatch.setattr(typed_counts, "GATHER", gather)
    graph = simulate_knowledge_graph(30, 12, 8, 2, seed=3).graph
    record = link_samples(graph, edge_type)
    steps, edges = Steps.of(record), record.subset(record.positive).subset(np.arange(12))
    source, target = steps.local[edges.source_index], steps.local[edges.target_index]
    paths = steps.metapaths(edge_type, 3)
    n_ends, own = steps.size[steps.ends[edge_type][1]], OwnEdges(edge_type, source, target)
    number, end = (index.ravel() for index in np.indices((len(source), n_ends)))
    fast = dict(PathCounts(steps, damping).between(paths, source, number, end, own))
    for column, edge in enumerate(edges.sample_id.tolist()):
        without, alone = Steps.of(replace(record, graph=graph.subset(graph.sample_id != edge))), source[[column]]
        for i, slow in PathCounts(without, damping).between(
            paths, alone, np.zeros(n_ends, dtype=int), np.arange(n_ends)
        ):
            np.testing.assert_allclose(fast[i][number == column], slow, rtol=2e-3, atol=1e-4)


def test_dealing_pairs_by_the_end_that_repeats_gives_each_pair_once() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 900, 3000), rng.integers(0, 40, 3000)
    source[:1000], seen = 7, []
    for turned, at, start, number, end in by_rows(source, target):
        ends = (end, start[number]) if turned else (start[number], end)
        assert np.array_equal(ends, np.stack([source[at], target[at]]))
        seen.append(at)
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(3000))


def test_training_edges_are_looked_at_as_if_they_were_not_there() -> None:
    """Scored with their own edge in place, CtDtCtD alone would tell every training edge from every other pair."""
    rng = np.random.default_rng(0)
    random_pairs = {(int(c), int(d)) for c, d in rng.integers(0, 25, (140, 2))}
    graph = toy([f"c{c:02d} CtD d{d:02d}" for c, d in sorted(random_pairs)])
    train, val, test = assign_folds(link_samples(graph, "CtD"))
    baseline = PathFeatures(penalties=[1.0]).fit(train, val, None)
    auroc = roc_auc_score(test.positive, baseline.predict(test.blind())[:, 0])
    assert abs(auroc - 0.5) < 0.2
    fitted = baseline.fitted["CtD"]
    source, target = (baseline.steps.local[index] for index in (train.source_index, train.target_index))
    own = baseline.features.without_own("CtD", fitted.paths, source[train.positive], target[train.positive])
    with_edge = baseline.features.between(fitted.paths, source[train.positive], target[train.positive])
    other = baseline.features.between(fitted.paths, source[~train.positive], target[~train.positive])
    assert with_edge[:, 0].min() >= 1
    assert own[:, 0].mean() < 3 * other[:, 0].mean()


def test_scores_are_the_regression_on_all_features_though_none_is_held_for_all_pairs(planted) -> None:
    """With all features of 3.3 million pairs of GiG at hand, a run on Hetionet's core did not come to an end."""
    train, val, test = planted
    baseline = PathFeatures().fit(train, val, None)
    for edge_type, fitted in baseline.fitted.items():
        at = test.edge_type == edge_type
        source, target = (baseline.steps.local[index[at]] for index in (test.source_index, test.target_index))
        walked = np.log1p(baseline.features.between(fitted.paths, source, target) / fitted.unit)
        x = np.concatenate([walked, baseline.features.degrees(edge_type, source, target, own=0)], axis=1)
        expected = ((x - fitted.center) / fitted.scale) @ fitted.weight
        np.testing.assert_allclose(baseline._score_one_way(edge_type, fitted, source, target), expected, atol=1e-4)


def test_only_the_metapaths_asked_for_are_used_and_unknown_ones_are_refused(planted) -> None:
    train, val, _ = planted
    asked = {"CtD": [["CbG", "DaG<"], ["CtD", "CtD<", "CtD"]]}
    baseline = PathFeatures(metapaths=asked).fit(train, val, None)
    assert baseline.fitted["CtD"].paths == [("CbG", "DaG<"), ("CtD", "CtD<", "CtD")]
    assert len(baseline.fitted["GiG"].paths) > 2
    with pytest.raises(InputError, match="no metapath"):
        PathFeatures(metapaths={"CtD": [["CbG", "CbG"]]}).fit(train, val, None)


def test_the_choice_of_knobs_is_one_for_the_truth_and_low_for_its_opposite(planted) -> None:
    train, val, _ = planted
    of_val = val.subset(val.edge_type == "CtD")
    choice = Choice(Steps.of(train), "CtD", of_val)
    edges = of_val.subset(of_val.positive)
    local = Steps.of(train).local
    known = set(zip(local[edges.source_index].tolist(), local[edges.target_index].tolist(), strict=True))
    truth = np.array(
        [float(pair in known) for pair in zip(choice.source.tolist(), choice.target.tolist(), strict=True)]
    )
    assert choice(truth) == 1
    assert choice(-truth) < 0.05
    assert 0.02 < choice(np.zeros(len(truth))) < 0.2  # the MRR of ties; AUROC is undefined


def test_negatives_have_the_density_that_is_taken_out_of_the_logits() -> None:
    draws = EdgeDraws(GRAPH, Steps.of(of(GRAPH, "c1 CtD d1")), torch.Generator().manual_seed(0))
    for name in ("CtD", "GiG"):
        weight = torch.tensor([float(edge_type == name) for edge_type in draws.edge_types])
        draw = draws.draw(1, 100_000, weight)
        negatives = draw.ends[:, draw.label == 0]
        first, last = (len(draws.members[node_type]) for node_type in draws.node_types[draws.edge_types.index(name)])
        key = (negatives[0] * len(GRAPH.node_id) + negatives[1]).numpy()
        _, position, count = np.unique(key, return_index=True, return_counts=True)
        assert len(count) == first * last
        expected = draws.log_density(draw)[draw.label == 0].numpy()[position]
        np.testing.assert_allclose(np.log(count / len(key) * first * last), expected, atol=0.03)
