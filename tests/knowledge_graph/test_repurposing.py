"""Ranked diseases of a compound and compounds of a disease, by id or name, with what is known of each link."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from typed_toy import IDS, NAMES, Dots, toy_spec

from torchcell.core.model import Model
from torchcell.core.spec import Spec
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.embed import held_out_links, link_scores, ranked_links

COLUMNS = ["rank", "source", "source_name", "edge_type", "target", "target_name", "score", "known", "note"]


@pytest.fixture
def model() -> Model:
    return Dots(toy_spec())


def expected(model: Model, source: list[int], target: list[int]) -> np.ndarray:
    score = (model.vectors[source] * model.vectors[target]).sum(1).numpy()
    return 1 / (1 + np.exp(-score))


def test_all_diseases_of_a_compound_come_best_first_with_names_and_known_links(model):
    table = ranked_links(model, source="Compound::0", top=None)
    score = expected(model, [0] * 5, range(4, 9))
    order = np.argsort(-score)
    assert list(table) == COLUMNS
    assert table["target"].tolist() == IDS[4 + order].tolist()
    assert table["target_name"].tolist() == NAMES[4 + order].tolist()
    np.testing.assert_allclose(table["score"], score[order], rtol=1e-6)
    assert set(table["target_name"][table["known"] == "train"]) == {"flu", "gout"}
    assert set(table["known"]) == {"train", ""}


def test_a_disease_is_found_by_its_name_in_any_case_and_its_compounds_are_ranked(model):
    table = ranked_links(model, target="GOUT", top=3, batch_size=2)
    score = expected(model, range(4), [5] * 4)
    assert table["source"].tolist() == IDS[np.argsort(-score)[:3]].tolist()
    assert set(table["target"]) == {"Disease::1"}
    assert table["rank"].tolist() == [1, 2, 3]


def test_links_held_out_of_the_graph_are_marked_by_their_part(model):
    record = SimpleNamespace(
        node_id=IDS,
        source_index=np.array([0, 0, 0, 1]),
        edge_type=np.array(["CtD"] * 4),
        target_index=np.array([4, 6, 7, 6]),
        positive=np.array([True, True, True, False]),
    )
    held_out = held_out_links(record, np.array(["train", "val", "test", "test"]))
    assert held_out["part"].tolist() == ["val", "test"]
    table = ranked_links(model, source="aspirin", top=None, held_out=held_out).set_index("target_name")
    assert table["known"].to_dict() == {"flu": "train", "gout": "train", "asthma": "val", "pain": "test", "malaria": ""}


def test_links_so_sure_that_their_probabilities_are_all_1_are_still_ranked():
    vectors = torch.ones(9, 3)
    vectors[4:] *= torch.tensor([20.0, 60, 40, 80, 50])[:, None]
    table = ranked_links(Dots(toy_spec(), vectors), source="aspirin")
    assert table["target_name"].tolist() == ["pain", "gout", "malaria", "asthma", "flu"]
    assert (table["score"] == 1).all()


def test_a_symmetric_edge_type_leaves_out_the_node_itself_and_knows_both_directions(model):
    held_out = pd.DataFrame(
        {"source": ["Disease::4"], "edge_type": ["DrD"], "target": ["Disease::0"], "part": ["test"]}
    )
    table = ranked_links(model, "DrD", source="flu", top=None, held_out=held_out).set_index("target_name")
    assert sorted(table.index) == ["asthma", "gout", "malaria", "pain"]
    assert table["known"].to_dict() == {"gout": "train", "malaria": "test", "asthma": "", "pain": ""}


def test_pairs_are_scored_alike_in_batches_of_any_size(model):
    source, target = np.array([0, 1, 2, 3, 0]), np.array([4, 5, 6, 7, 8])
    whole = link_scores(model, "CtD", source, target)
    np.testing.assert_array_equal(link_scores(model, "CtD", source, target, batch_size=2), whole)
    assert link_scores(model, "CtD", source[:0], target[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "asprin"}, r"source=asprin: no Compound has this id or name; the nearest are \['aspirin'"),
        ({"source": "Compound::9"}, "no Compound has this id or name, e.g. 'Compound::0'"),
        ({"source": "compound::3"}, r"the nearest are \['Compound::3'"),
        ({"target": "xyzzy"}, "target=xyzzy: no Disease has this id or name, e.g. 'Disease::0'"),
        ({"source": "twin"}, "name of 2 nodes: 'Compound::2', 'Compound::3'; give the id"),
        ({"source": "Disease::1"}, "source=Disease::1 is a Disease, but the source of CtD is a Compound"),
        ({"source": "flu"}, "source=flu: no Compound has this id or name"),
        ({"source": "aspirin", "target": "flu"}, "give either source"),
        ({}, "give either source"),
        ({"source": "aspirin", "edge_type": "CtT"}, r"edge_type=CtT: .* the nearest are \['CtD'"),
        ({"source": "aspirin", "top": 0}, "top=0: must be 1 or more"),
    ],
)
def test_what_can_not_be_ranked_is_said(model, given, said):
    with pytest.raises(InputError, match=said):
        ranked_links(model, **given)


def test_one_of_several_supervised_edge_types_must_be_named():
    model = Dots(toy_spec(("CtD", "DrD")))
    with pytest.raises(InputError, match="2 edge types are supervised; name one by edge_type=: 'CtD', 'DrD'"):
        ranked_links(model, source="flu")
    assert set(ranked_links(model, "DrD", source="flu")["edge_type"]) == {"DrD"}


def test_a_model_of_cells_ranks_no_links(model):
    blank = torch.zeros(1)
    model.spec = Spec("regression", ("y",), (), (), blank, blank + 1, None, "hash")
    with pytest.raises(InputError, match="Dots ranks no links"):
        ranked_links(model, source="aspirin")
