"""Embeddings whose health is known in closed form, and the words that a collapse is told in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from torchcell.knowledge_graph.embedding_health import (
    LinkSkill,
    TypeHealth,
    components_for,
    embedding_health,
    health_guard,
    mean_cosine,
    n_distinct,
    rank_me,
    type_health,
)
from torchcell.screen.models.perturbed_cell_gnn.model import effective_rank

RNG = np.random.default_rng(0)
GAUSS = RNG.normal(size=(500, 16))


def test_vectors_at_right_angles_have_cosine_0_and_full_rank():
    found = type_health("A", 3 * np.eye(8))
    assert found.cosine == pytest.approx(0)
    assert found.rank == pytest.approx(8)
    assert found.room == 7
    assert found.components == 7  # centered, 8 corners of a simplex span 7 equal axes: 6 hold 86 %
    assert found.status == "healthy"
    assert (
        found.why
        == "mean cosine 0.00 is below 0.5; 7 component(s) hold 90 % of the variance, 1.8 are wanted; effective rank 8.0, 2.8 is wanted"
    )


def test_a_simplex_has_the_least_cosine_that_n_vectors_can_have():
    simplex = np.eye(6) - 1 / 6
    assert mean_cosine(simplex) == pytest.approx(-1 / 5)
    assert rank_me(simplex) == pytest.approx(5)


def test_identical_vectors_are_collapsed_and_said_to_be_one():
    found = type_health("A", np.tile(RNG.normal(size=12).astype(np.float32), (50, 1)))
    assert found.cosine == pytest.approx(1)
    assert found.components == 0
    assert found.rank == pytest.approx(1, abs=1e-6)
    assert found.least_sd == pytest.approx(0, abs=1e-7)
    assert found.status == "collapsed"
    assert "all vectors are one among 50 nodes" in found.why


def test_a_few_vectors_repeated_are_counted():
    found = type_health("A", GAUSS[:4][RNG.integers(0, 4, 300)] + 1e-7 * RNG.normal(size=(300, 16)))
    assert found.distinct == 4
    assert "only 4 vectors differ among 300 nodes" in found.why


@pytest.mark.parametrize("copies", [1, 5])
def test_distinct_vectors_are_counted_as_a_search_over_all_pairs_does(copies):
    x = np.repeat(GAUSS[:40], copies, axis=0)[RNG.permutation(40 * copies)]
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    assert n_distinct(x) == len(np.unique((distance < 1e-9).argmax(1))) == 40


def test_rank_one_is_named_by_its_components_and_its_rank():
    found = type_health("A", RNG.normal(size=(200, 1)) * RNG.normal(size=(1, 32)))
    assert abs(found.cosine) < 0.1  # both signs of one direction: the cosine alone would not tell
    assert found.components == 1
    assert found.rank == pytest.approx(1)
    assert found.why == "1 component(s) hold 90 % of the variance, 8.0 are wanted; effective rank 1.0, 12.8 is wanted"


def test_an_isotropic_cloud_is_healthy():
    found = type_health("A", GAUSS)
    assert found.status == "healthy"
    assert abs(found.cosine) < 0.02
    assert 13 <= found.components <= 16
    assert found.rank > 15.9
    assert found.least_sd == pytest.approx(1, abs=0.1)


def test_a_shared_offset_is_a_collapse_of_the_cosine():
    found = type_health("A", GAUSS + 3)
    assert found.cosine == pytest.approx(9 / 10, abs=0.01)
    assert [reason for reason in found.reasons if "cosine" in reason] == ["mean cosine 0.90 is not below 0.5"]


def test_the_closed_forms_equal_pairs_and_decompositions():
    x = GAUSS[:60] @ np.diag(np.linspace(0.1, 2, 16)) + 0.3
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(60, 1)]
    assert mean_cosine(x) == pytest.approx(cosines.mean(), abs=1e-12)
    assert rank_me(x) == pytest.approx(float(effective_rank(torch.from_numpy(x))), rel=1e-5)
    from sklearn.decomposition import PCA

    shares = np.cumsum(PCA().fit(x).explained_variance_ratio_)
    assert components_for(x) == 1 + np.flatnonzero(shares >= 0.9)[0]


@pytest.mark.parametrize("shape", [(40, 8), (8, 40)])
def test_health_does_not_change_with_scale_rotation_or_order(shape):
    x = RNG.normal(size=shape) + 0.2
    turn, _ = np.linalg.qr(RNG.normal(size=(shape[1], shape[1])))
    one, other = type_health("A", x), type_health("A", 1e3 * (x @ turn)[::-1])
    for name in ("cosine", "components", "rank", "distinct"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6)


def test_more_dimensions_than_nodes_are_judged_by_the_nodes():
    found = type_health("A", RNG.normal(size=(5, 300)))
    assert found.room == 4
    assert found.status == "healthy"


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_nodes_are_undefined(n):
    found = type_health("A", np.ones((n, 4)))
    assert (found.status, np.isnan(found.cosine)) == ("undefined", True)
    assert found.why == f"{n} node(s); 3 are needed"


def test_zero_vectors_are_a_collapse_of_their_own():
    found = type_health("A", np.concatenate([GAUSS[:30], np.zeros((2, 16))]))
    assert found.status == "collapsed"
    assert found.why == "2 of 32 vectors are zero"
    assert found.cosine == pytest.approx(mean_cosine(GAUSS[:30]))
    assert type_health("A", np.zeros((5, 3))).why.startswith(
        "5 of 5 vectors are zero; all vectors are one among 5 nodes"
    )
    assert np.isnan(rank_me(np.zeros((4, 4))))


def test_links_no_better_than_the_degree_product_collapse_the_types_at_their_ends():
    node_type = np.repeat(["Compound", "Disease", "Gene"], 60)
    links = [LinkSkill("CtD", ("Compound", "Disease"), 0.55, 0.6), LinkSkill("GiG", ("Gene", "Gene"), 0.8, 0.7)]
    found = {one.node_type: one for one in embedding_health(GAUSS[:180], node_type, links)}
    assert found["Gene"].status == "healthy"
    assert found["Compound"].why == found["Disease"].why == "AUROC of CtD 0.550, the degree product's is 0.600"
    assert all(one.status == "healthy" for one in embedding_health(GAUSS[:180], node_type))


@pytest.mark.parametrize(
    ("auroc", "degree", "above"), [(0.6, 0.55, True), (0.5, 0.5, False), (0.45, 0.3, False), (float("nan"), 0.5, False)]
)
def test_links_must_be_told_better_than_by_degree_and_by_chance(auroc, degree, above):
    assert LinkSkill("CtD", ("Compound", "Disease"), auroc, degree).above is above


def test_the_guard_is_plain_json_and_names_the_collapsed_types():
    found = embedding_health(
        np.concatenate([GAUSS[:30], np.ones((30, 16)), np.ones((1, 16))]), np.array([*"a" * 30, *"b" * 30, "c"])
    )
    guard = json.loads(json.dumps(health_guard(found), allow_nan=False))
    assert guard["collapsed"] is True
    assert guard["collapsed_outputs"] == ["b"]
    assert guard["finding"].startswith("b: all vectors are one among 30 nodes")
    assert guard["types"]["c"]["cosine"] is None
    assert isinstance(found[0], TypeHealth)
