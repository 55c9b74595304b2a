"""The stack of links: columns from graphs without the edges of a fold, no gain from a shuffled graph, plain state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.knowledge_graph.test_link_baselines import assign_folds
from torchcell.io.errors import InputError
from torchcell.io.state import read_state, write_state
from torchcell.knowledge_graph.baselines import Steps
from torchcell.knowledge_graph.experts import LinkExperts
from torchcell.knowledge_graph.record import Links, link_samples
from torchcell.knowledge_graph.simulate import simulate_knowledge_graph
from torchcell.knowledge_graph.stack import Stack
from torchcell.knowledge_graph.typed_graph import TypedGraph

SMALL = {"penalties": (10.0, 100.0), "negatives": 10}


def whole() -> Links:
    return link_samples(simulate_knowledge_graph(150, 80, 40, noise=0.05, seed=1).graph, ["CtD"])


@pytest.fixture(scope="module")
def parts() -> tuple[Links, Links, Links]:
    return assign_folds(whole())


@pytest.fixture(scope="module")
def stack(parts) -> Stack:
    return Stack(**SMALL).fit(parts[0], parts[1], None)


def auroc(model: Stack, test: Links) -> float:
    """Against non-edges drawn by degree, which the degrees alone can't tell apart."""
    matched = ~np.isnan(test.label[:, 0])
    return float(roc_auc_score(test.label[matched, 0], model.predict(test.blind())[matched, 0]))


def test_hidden_edges_leave_the_graph_and_no_other(parts):
    train = parts[0]
    held = train.positive & (np.arange(len(train)) % 4 == 0)
    hidden = train.hiding(held)
    gone = set(train.graph.sample_id.tolist()) - set(hidden.graph.sample_id.tolist())
    assert gone == set(train.subset(held).sample_id.tolist())
    turned = replace(train, source_index=train.target_index, target_index=train.source_index)
    assert set(turned.hiding(held).graph.sample_id.tolist()) == set(hidden.graph.sample_id.tolist())


def test_the_columns_of_a_held_out_edge_are_those_of_a_graph_that_never_had_it(parts):
    train = parts[0]
    seen = []
    held = np.zeros(len(train), dtype=bool)
    held[np.flatnonzero(train.positive)[:20]] = True
    never = replace(train, graph=train.graph.subset(~np.isin(train.graph.sample_id, train.subset(held).sample_id)))
    for record in (train.hiding(held), never.hiding(held)):
        steps = Steps.of(record)
        experts = LinkExperts(steps, "CtD", sorted(steps.metapaths("CtD", 3)), 0.5)
        ends = steps.local[train.source_index[held]], steps.local[train.target_index[held]]
        seen.append(experts.columns(*ends))
    assert seen[0].tobytes() == seen[1].tobytes()
    full = LinkExperts(Steps.of(train), "CtD", experts.paths, 0.5)
    assert np.abs(full.columns(*ends) - seen[0]).max() > 0.1, "with the edge itself they would be others"
    assert seen[0].shape[1] == len(experts.names)


def test_the_graph_carries_it_and_a_shuffled_one_gives_no_gain(parts, stack):
    train, val, test = parts
    rng = np.random.default_rng(0)
    graph = train.graph
    source, target = graph.source_index.copy(), graph.target_index.copy()
    for edge_type in graph.edge_types:  # all but what is predicted: ends get each other's partners
        at = np.flatnonzero(graph.edge_type == edge_type)
        source[at] = rng.permutation(source[at])
    names = graph.node_id
    shuffled = replace(graph, source_id=names[source], target_id=names[target])
    _, first = np.unique(shuffled.sample_id, return_index=True)
    shuffled = shuffled.subset(np.sort(first))
    apart = [replace(part, graph=shuffled) for part in (train, val, test)]
    inner = Stack(**SMALL).fit(apart[0], apart[1], None)
    assert auroc(stack, test) > 0.75
    assert auroc(inner, apart[2]) < 0.65


def test_its_state_is_a_file_of_plain_arrays_that_scores_the_same(parts, stack, tmp_path):
    write_state(tmp_path / "stack.npz", stack.state_dict())
    graph = TypedGraph.from_knowledge_graph(parts[0].graph)
    again = Stack(**SMALL).load_state_dict(read_state(tmp_path / "stack.npz"), graph)
    test = parts[2].blind()
    np.testing.assert_allclose(again.predict(test), stack.predict(test), atol=1e-4)


def test_it_says_what_carries_it_for_each_output(parts, stack):
    found = stack.contributions()
    assert len(found) == len(parts[0].outputs)
    assert max(found[0].values()) > 0.1


def test_without_edges_to_hold_out_it_says_what_to_do(parts):
    nobody = np.zeros(len(parts[0]), dtype=bool)
    model = Stack(**SMALL).with_folds(lambda _: iter([(~nobody, nobody)]))
    with pytest.raises(InputError, match=r"no inner fold has edges of CtD .*baselines.stack=null"):
        model.fit(parts[0], parts[1], None)
