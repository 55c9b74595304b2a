"""Levels of embeddings from elsewhere: what the field calls good is healthy, and a collapse is one by a named bound."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.io.errors import InputError
from torchcell.knowledge_graph.embedding_health import (
    FileBounds,
    TrainingBounds,
    TypeHealth,
    embedding_health,
    type_health,
)

FILE = FileBounds()


def cloud(
    n: int, width: int, dims: int, shared: float = 0.0, of_type: float = 0.0, node_types: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of length near 1 with a common part, a part of their node type and noise of ``dims`` directions."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(width, 1 + node_types + dims)))
    node_type = np.arange(n) % node_types
    noise = rng.normal(size=(n, dims)) * np.sqrt((1 - shared - of_type) / dims)
    x = np.sqrt(shared) * axes[:, 0] + np.sqrt(of_type) * axes[:, 1 + node_type].T + noise @ axes[:, 1 + node_types :].T
    return x, np.array([f"type {i}" for i in node_type])


def levels(found: list[TypeHealth]) -> dict[str, str]:
    return {one.node_type: one.status for one in found}


def test_embeddings_that_the_field_calls_good_are_healthy():
    """512 wide, mean cosine .49, 21 components, .58 within a type: the bounds of our training called them collapsed."""
    x, node_type = cloud(1_200, 512, 19, shared=0.465, of_type=0.115, node_types=6)
    found = embedding_health(x, node_type, bounds=FILE, whole=True)
    whole, *node_types = found
    assert (whole.node_type, whole.whole, whole.width) == ("all nodes", True, 512)
    assert whole.cosine == pytest.approx(0.49, abs=0.01)
    assert whole.components == 21
    assert np.mean([one.cosine for one in node_types]) == pytest.approx(0.58, abs=0.01)
    assert set(levels(found).values()) == {"healthy"}
    assert whole.why == "mean cosine 0.49 is not above 0.6; 21 component(s) hold 90 % of the variance, 15 are wanted"
    assert set(levels(embedding_health(x, node_type)).values()) == {"collapsed"}, "too strict for a file from elsewhere"


def test_tokens_like_those_of_the_first_model_of_the_readme_have_not_collapsed():
    """540 genes, 64 wide, mean cosine .34, 12 components: once called collapsed, for 16 are wanted in our training."""
    x, _ = cloud(540, 64, 13, shared=0.34)
    one = type_health("all", x, bounds=FILE)
    assert (one.cosine, one.components) == (pytest.approx(0.34, abs=0.02), 12)
    assert one.status == "narrow"
    assert one.why == "12 component(s) hold 90 % of the variance, 15 are wanted"


@pytest.mark.parametrize(
    ("shared", "dims", "level", "why"),
    [
        (0.94, 6, "collapsed", "mean cosine 0.94 is above 0.9 and 6 component(s) hold 90 % of the variance, fewer than 10"),
        (0.94, 60, "narrow", "mean cosine 0.94 is above 0.6"),
        (0.97, 60, "collapsed", "mean cosine 0.97 within the node type is above 0.95"),
        (0.70, 60, "narrow", "mean cosine 0.70 is above 0.6"),
        (0.30, 6, "narrow", "6 component(s) hold 90 % of the variance, 15 are wanted"),
        (0.55, 60, "healthy", "mean cosine 0.55 is not above 0.6"),
    ],
)  # fmt: skip
def test_each_level_says_its_bound(shared, dims, level, why):
    one = type_health("a", cloud(2_000, 128, dims, shared)[0], bounds=FILE)
    assert (one.status, one.reasons[0]) == (level, why)


def test_a_type_may_collapse_while_all_nodes_together_do_not():
    x, node_type = cloud(600, 64, 40, of_type=0.97, node_types=3)
    found = levels(embedding_health(x, node_type, bounds=FILE, whole=True))
    assert found == {"all nodes": "narrow", "type 0": "collapsed", "type 1": "collapsed", "type 2": "collapsed"}


def test_all_nodes_of_several_types_are_one_row_and_a_file_of_one_type_has_no_other():
    x, node_type = cloud(600, 64, 40, shared=0.97, node_types=2)
    assert list(levels(embedding_health(x, node_type, bounds=FILE, whole=True))) == ["all nodes", "type 0", "type 1"]
    assert levels(embedding_health(x, np.full(600, "all"), bounds=FILE, whole=True)) == {"all": "collapsed"}


def test_what_all_rows_share_counts_no_more_after_centering():
    x, _ = cloud(2_000, 128, 60, shared=0.97)
    one = type_health("all", x, bounds=FileBounds(centered=True))
    assert one.centered_cosine == pytest.approx(0, abs=1e-3)
    assert one.status == "healthy"
    assert one.reasons[0].startswith(("mean cosine 0.00 after centering", "mean cosine -0.00 after centering"))
    same = type_health("all", np.tile(x[:1], (50, 1)), bounds=FileBounds(centered=True))
    assert (same.status, same.why) == ("collapsed", "all vectors are one among 50 nodes")
    assert np.isnan(same.centered_cosine)


def test_bounds_can_be_set():
    x, _ = cloud(540, 64, 13, shared=0.34)
    assert type_health("a", x, bounds=FileBounds(healthy_components=10)).status == "healthy"
    assert type_health("a", x, bounds=FileBounds(healthy_cosine=0.3, healthy_components=10)).status == "narrow"
    assert type_health("a", x, bounds=FileBounds(collapsed_within=0.3, healthy_cosine=0.2)).status == "collapsed"
    assert type_health("a", x).status == "collapsed"
    assert type_health("a", x, bounds=TrainingBounds(components=0.15, rank=0.1)).status == "healthy"


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"healthy_cosine": 1.5}, "not between 0 and 1: healthy_cosine=1.5"),
        ({"collapsed_components": 20}, "the first is not above the second"),
        ({"healthy_cosine": 0.93}, "healthy_cosine=0.93 is above a bound of collapse"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(bounds, said):
    with pytest.raises(InputError, match=said):
        FileBounds(**bounds)
    with pytest.raises(InputError, match="rank=-1"):
        TrainingBounds(rank=-1)


def test_a_handful_of_nodes_is_judged_by_the_directions_it_can_have():
    assert type_health("a", np.random.default_rng(0).normal(size=(6, 300)), bounds=FILE).status == "healthy"
    assert type_health("a", np.ones((2, 4)), bounds=FILE).status == "undefined"
