"""Maps of latents: components against an oracle, colors, and the section of the report."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.report.maps import (
    NEAREST,
    color_scale,
    draw_maps,
    latent_section,
    nearest_mean,
    pca_map,
    principal_components,
    umap_map,
)


@pytest.fixture
def latent() -> np.ndarray:
    """200 samples on a line of 6 dimensions with a little noise, far from the origin."""
    rng = np.random.default_rng(0)
    line = np.outer(rng.normal(size=200), [3, 0, 0, -4, 0, 0]) + 0.1 * rng.normal(size=(200, 6))
    return (line + 7).astype(np.float32)


def test_components_are_those_of_scikit_learn_up_to_sign(latent):
    from sklearn.decomposition import PCA

    oracle = PCA(4, svd_solver="full").fit(latent.astype(np.float64))
    scores, shares = principal_components(latent, most=4)
    np.testing.assert_allclose(shares, oracle.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(np.abs(scores), np.abs(oracle.transform(latent)), atol=1e-4)


def test_the_same_latents_give_the_same_map_whatever_their_order(latent):
    scores, _ = principal_components(latent)
    np.testing.assert_allclose(principal_components(latent[::-1])[0][::-1], scores, atol=1e-5)
    largest = np.linalg.lstsq(latent - latent.mean(0), scores[:, 0], rcond=None)[0]
    assert largest[np.abs(largest).argmax()] > 0, "an axis points where its largest loading is positive"


@pytest.mark.parametrize(("shape", "n_components"), [((3, 6), 2), ((1, 6), 1), ((9, 1), 1)])
def test_few_rows_or_columns_give_few_components(shape, n_components):
    scores, shares = principal_components(np.random.default_rng(0).normal(size=shape))
    assert scores.shape == (shape[0], n_components)
    assert len(shares) == n_components
    assert pca_map(scores, shares).xy.shape == (shape[0], 2)


def test_rows_that_differ_by_rounding_only_have_no_variance():
    rng = np.random.default_rng(0)
    row = rng.normal(size=8).astype(np.float32)
    equal = np.nextafter(row, np.inf, dtype=np.float32)
    rows = np.where(rng.random((50, 1)) < 0.5, row, equal)
    assert not principal_components(rows)[1].any()
    assert principal_components(rows * (1 + 1e-3 * rng.normal(size=(50, 1))))[1].any()


def test_colors_run_around_zero_only_where_values_lie_on_both_sides():
    assert color_scale(np.linspace(-1, 3, 101))[:2] == pytest.approx((-2.92, 2.92))
    low, high, _ = color_scale(np.linspace(0.5, 1.5, 101))
    assert (low, high) == pytest.approx((0.52, 1.48))
    assert color_scale(np.array([0.0] * 99 + [1.0]))[:2] == (0.0, 1.0), "a rare class has a color of its own"


def test_a_panel_draws_every_set_once_and_the_most_extreme_last():
    xy = np.arange(12, dtype=np.float32).reshape(6, 2)
    values = np.array([0.0, 5.0, np.nan, -0.1, 0.2, -3.0])
    figure = draw_maps([pca_map(xy, np.array([0.6, 0.3])), umap_map(xy)], {"measured y": values})
    left, right = figure.axes[:2]
    rings, points = left.collections[:2]
    np.testing.assert_array_equal(rings.get_offsets(), xy[[2]])
    np.testing.assert_array_equal(points.get_offsets()[-2:], xy[[5, 1]])
    assert len(points.get_offsets()) == 5
    assert left.get_xlabel() == "PC1 (60 % of the variance)"
    assert left.get_ylabel() == "PC2 (30 %)"
    assert len(left.get_xticks()) > 0
    assert len(right.get_xticks()) == 0, "UMAP has no scale"


def test_the_mean_of_the_nearest_is_that_of_a_slow_search(latent):
    values = np.random.default_rng(1).normal(size=len(latent))
    distance = np.linalg.norm(latent[:, None].astype(np.float64) - latent, axis=-1)
    expected = [values[[j for j in distance[i].argsort() if j != i][:5]].mean() for i in range(len(latent))]
    np.testing.assert_allclose(nearest_mean(latent, values, 5), expected)


def test_the_section_tells_what_the_map_holds(latent):
    line = latent[:, 0].astype(np.float64)
    growth = np.where(np.arange(200) < 150, line, np.nan)
    constant = np.ones(200)
    section = latent_section("z_S", latent, {"growth": growth, "flat": constant}, "test", n_whole=900)
    assert "200 of 900 samples, chosen at random, of the test part" in section.text
    assert "'z_S' (6 numbers a sample)" in section.text
    assert "have 100 % and 0 % of" in section.text
    assert section.slug == "latent_maps"
    table = section.table.set_index("measured phenotype")
    assert table.loc["growth", "samples"] == "150"
    assert abs(float(table.loc["growth", "r with PC1"])) > 0.99
    assert float(table.loc["growth", f"r with the mean of the {NEAREST} nearest samples"]) > 0.99
    assert table.loc["flat", "r with PC1"] == "undefined"
    assert len(section.figure.axes) == 4, "two panels and their color bars"


def test_the_section_says_why_it_is_not_drawn(latent):
    said = {
        "fewer than 5 samples": latent[:4],
        "the same for all samples": np.ones((30, 4), dtype=np.float32),
        "not finite": np.where(latent > 12, np.nan, latent),
    }
    for why, x in said.items():
        section = latent_section("z_S", x, {"y": np.zeros(len(x))}, "test", len(x))
        assert why in section.text
        assert section.figure is None


def test_a_set_without_a_measured_value_is_still_on_the_map(latent):
    section = latent_section("z_S", latent, {"y": np.full(200, np.nan)}, "val", 200)
    assert section.table["r with PC1"].tolist() == ["undefined"]
    assert len(section.figure.axes[0].collections[0].get_offsets()) == 200
