"""Relations on heads: what is made of a config, and every config that is refused."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.models.cell_graph_transformer.head_assignments import HeadAssignment, assign_heads

RELATIONS = ("physical", "regulatory", "coexpression")


def graph() -> CellGraph:
    """Three relations among genes, and one of genes to terms between them."""
    network = sp.csr_matrix(np.ones((4, 4)) - np.eye(4))
    annotated = sp.csr_matrix(np.ones((2, 4)))
    matrices = {"physical": network, "annotated": annotated, "regulatory": network, "coexpression": network}
    genes = [f"g{i}" for i in range(4)]
    ends = {"annotated": ("gene", "term")}
    return CellGraph(genes, matrices, ["regulatory", "annotated"], None, {"term": ["t0", "t1"]}, ends)


def assigned(config=None, weight=0.01, layers=2, heads=2):
    return assign_heads(graph(), config, weight, layers, heads)


def test_by_default_each_relation_among_genes_gets_a_head_and_first_layers_fill_first():
    among = [name for name in graph().relations if name != "annotated"]
    assert sorted(among) == sorted(RELATIONS)
    places = [(0, 0), (0, 1), (1, 0)]
    assert assigned() == [HeadAssignment(name, *place, 0.01) for name, place in zip(among, places, strict=True)]


def test_assignments_come_in_the_order_of_layers_and_heads_with_their_own_lambda():
    config = {"regulatory": [[1, 1], [0, 1]], "physical": [[1, 0]]}
    made = assigned(config, {"physical": 0.5, "regulatory": 0.0})
    assert made == [
        HeadAssignment("regulatory", 0, 1, 0.0),
        HeadAssignment("physical", 1, 0, 0.5),
        HeadAssignment("regulatory", 1, 1, 0.0),
    ]


def test_no_assignments_are_allowed():
    assert assigned({}) == []
    assert assigned({}, layers=0) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"phisical": [[0, 0]]}, r"model\.graph_loss\.head_assignments names 'phisical', no relation among genes; .*physical"),
        ({"xyz": [[0, 0]]}, r"model\.graph_loss\.head_assignments names 'xyz'.*physical.*"),
        ({"annotated": [[0, 0]]}, r"model\.graph_loss\.head_assignments names 'annotated', no relation among genes"),
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
def test_assignments_that_cannot_be_are_refused(config, message):
    with pytest.raises(InputError, match=message):
        assigned(config)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-0.1, "of .* is -0.1; lambda must be a number, 0 or more"),
        (float("nan"), "lambda must be a number"),
        (float("inf"), "is inf; lambda must be a number"),
        ({"physical": 1.0, "regulatory": -2.0, "coexpression": 0.0}, "of regulatory is -2.0"),
        ({"physical": 1.0, "coexpression": 1.0}, "gives no lambda for regulatory; 0 leaves its loss out"),
        (
            dict.fromkeys(RELATIONS, 1.0) | {"regulatry": 1.0},
            r"model\.graph_loss\.weight names 'regulatry'.*regulatory",
        ),
    ],
    ids=["negative", "NaN", "infinite", "one negative", "missing", "typo"],
)
def test_lambdas_that_cannot_be_are_refused(weight, message):
    with pytest.raises(InputError, match=message):
        assigned(None, weight)


def test_without_layers_nothing_is_assigned():
    assert assigned(layers=0) == []


def test_more_relations_than_heads_are_refused_unless_some_are_named():
    with pytest.raises(InputError, match=r"3 relations and 2 heads \(1 layers of 2\): name fewer relations"):
        assigned(layers=1)
    assert len(assigned({"physical": [[0, 0]], "regulatory": [[0, 1]]}, layers=1)) == 2
