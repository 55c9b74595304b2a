"""Ties of relations to heads: what is made of a config, and every config that is refused."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.models.cell_graph_transformer.graph_prior import Tie, graph_ties

RELATIONS = ("physical", "regulatory", "coexpression")


def graph() -> CellGraph:
    """Three relations among genes, and one of genes to terms between them."""
    network = sp.csr_matrix(np.ones((4, 4)) - np.eye(4))
    annotated = sp.csr_matrix(np.ones((2, 4)))
    matrices = {"physical": network, "annotated": annotated, "regulatory": network, "coexpression": network}
    genes = [f"g{i}" for i in range(4)]
    ends = {"annotated": ("gene", "term")}
    return CellGraph(genes, matrices, ["regulatory", "annotated"], None, {"term": ["t0", "t1"]}, ends)


def ties(config=None, weight=0.01, layers=2, heads=2):
    return graph_ties(graph(), config, weight, layers, heads)


def test_by_default_each_relation_among_genes_gets_a_head_and_first_layers_fill_first():
    among = [name for name in graph().relations if name != "annotated"]
    assert sorted(among) == sorted(RELATIONS)
    places = [(0, 0), (0, 1), (1, 0)]
    assert ties() == [Tie(name, *place, 0.01) for name, place in zip(among, places, strict=True)]


def test_ties_come_in_the_order_of_layers_and_heads_with_their_own_lambda():
    config = {"regulatory": [[1, 1], [0, 1]], "physical": [[1, 0]]}
    made = ties(config, {"physical": 0.5, "regulatory": 0.0})
    assert made == [Tie("regulatory", 0, 1, 0.0), Tie("physical", 1, 0, 0.5), Tie("regulatory", 1, 1, 0.0)]


def test_no_ties_are_allowed():
    assert ties({}) == []
    assert ties({}, layers=0) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"phisical": [[0, 0]]}, r"model\.ties names 'phisical', no relation among genes; .*physical"),
        ({"xyz": [[0, 0]]}, r"model\.ties names 'xyz'.*physical.*"),
        ({"annotated": [[0, 0]]}, r"model\.ties names 'annotated', no relation among genes"),
        ({"physical": [[0, 0]], "regulatory": [[0, 0]]}, "both physical and regulatory on layer 0, head 0"),
        ({"physical": [[0, 0], [0, 0]]}, "puts physical twice on layer 0, head 0"),
        ({"physical": [[2, 0]]}, "physical on layer 2, head 0; there are 2 layers and 2 heads, counted from 0"),
        ({"physical": [[0, 2]]}, "physical on layer 0, head 2; there are 2 layers and 2 heads"),
        ({"physical": [[0, -1]]}, "physical on layer 0, head -1"),
        ({"physical": [0, 1]}, r"gives physical \[0, 1\]; write pairs of layer and head"),
        ({"physical": [[0, 1, 1]]}, "write pairs of layer and head"),
        ({"physical": [[0, 0.5]]}, "write pairs of layer and head"),
    ],
    ids=["typo", "far from all", "genes to terms", "two on one head", "twice", "layer", "head", "below 0", "flat",
         "three numbers", "half a head"],
)  # fmt: skip
def test_ties_that_cannot_be_are_refused(config, message):
    with pytest.raises(InputError, match=message):
        ties(config)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-0.1, "of .* is -0.1; lambda must be a number, 0 or more"),
        (float("nan"), "lambda must be a number"),
        (float("inf"), "is inf; lambda must be a number"),
        ({"physical": 1.0, "regulatory": -2.0, "coexpression": 0.0}, "of regulatory is -2.0"),
        ({"physical": 1.0, "coexpression": 1.0}, "gives no lambda for regulatory; 0 leaves its term out"),
        (dict.fromkeys(RELATIONS, 1.0) | {"regulatry": 1.0}, r"model\.graph_weight names 'regulatry'.*regulatory"),
    ],
    ids=["negative", "NaN", "infinite", "one negative", "missing", "typo"],
)
def test_lambdas_that_cannot_be_are_refused(weight, message):
    with pytest.raises(InputError, match=message):
        ties(None, weight)


def test_without_layers_nothing_is_tied():
    assert ties(layers=0) == []


def test_more_relations_than_heads_are_refused_unless_some_are_named():
    with pytest.raises(InputError, match=r"3 relations and 2 heads \(1 layers of 2\): name fewer relations"):
        ties(layers=1)
    assert len(ties({"physical": [[0, 0]], "regulatory": [[0, 1]]}, layers=1)) == 2
