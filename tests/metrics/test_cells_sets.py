"""The energy distance of two sets of cells."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from torchcell.metrics.cells_sets import energy_distance


def test_it_is_twice_the_distance_between_less_the_distances_within() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 7)), rng.normal(0.5, 2.0, (41, 7))
    expected = 2 * pairwise_distances(x, y).mean() - pairwise_distances(x).mean() - pairwise_distances(y).mean()
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-12)
    assert energy_distance(y, x) == pytest.approx(expected, rel=1e-12)


def test_equal_sets_have_zero_in_whatever_order_and_point_masses_twice_their_distance() -> None:
    x = np.random.default_rng(1).normal(size=(25, 4))
    assert energy_distance(x, x[::-1]) == pytest.approx(0, abs=1e-12)
    assert energy_distance(np.zeros((5, 4)), np.full((3, 4), 2.0)) == pytest.approx(2 * 4.0)
    assert np.isnan(energy_distance(x, x[:0]))


def test_the_right_mean_with_the_wrong_spread_is_seen() -> None:
    rng = np.random.default_rng(2)
    cells, alike = rng.normal(size=(300, 5)), rng.normal(size=(300, 5))
    flat = np.repeat(cells.mean(0, keepdims=True), 300, axis=0)
    assert energy_distance(cells, alike) < 0.05 < energy_distance(cells, flat)


def test_blocks_of_cells_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(20, 3))
    whole = energy_distance(x, y)
    monkeypatch.setattr("torchcell.metrics.cells_sets.ROWS", 8)
    assert energy_distance(x, y) == pytest.approx(whole, rel=1e-12)
