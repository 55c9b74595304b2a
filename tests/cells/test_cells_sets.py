"""The energy distance of two sets of cells."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from torchcell.cells.metrics import CellPairs, CellsContext, e_distance, energy_distance, predicted_cells
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.simulate import simulate_cells
from torchcell.evaluation.metrics import Profiles


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
    monkeypatch.setattr("torchcell.cells.metrics.ROWS", 8)
    assert energy_distance(x, y) == pytest.approx(whole, rel=1e-12)


@pytest.fixture(scope="module")
def record() -> Pseudobulk:
    return Pseudobulk.from_cells(simulate_cells(n_genes=30, scale="lognorm").cells, ("cell_line",))


def profiles(record: Pseudobulk, prediction: np.ndarray, cells: CellPairs | None) -> Profiles:
    truth, other = record.target.astype(np.float64), record.input_control.astype(np.float64)
    return Profiles(truth, prediction, CellsContext(input_control=other, cells=cells))


def test_a_mean_is_scored_by_control_cells_that_are_moved_by_its_change(record: Pseudobulk) -> None:
    pairs = CellPairs.drawn(record, most=12)
    prediction = record.target + np.random.default_rng(4).normal(0, 0.3, record.target.shape)
    found = e_distance(profiles(record, prediction, pairs))
    for i, change in enumerate(prediction - record.input_control):
        assert len(pairs.control[i]) == len(pairs.measured[i]) == 12
        assert found[i] == pytest.approx(energy_distance(pairs.control[i] + change, pairs.measured[i]), abs=1e-9)
    right, nothing = (
        e_distance(profiles(record, each, pairs)).mean() for each in (record.target, record.input_control)
    )
    assert right < nothing


def test_the_controls_are_of_the_half_that_predictions_start_from_and_do_not_hang_on_the_order(record) -> None:
    pairs, turned = CellPairs.drawn(record, most=500), CellPairs.drawn(record.subset(np.arange(len(record))[::-1]), 500)
    for i in range(len(record)):
        np.testing.assert_allclose(pairs.control[i].mean(0), record.input_control[i], atol=1e-5)
        np.testing.assert_allclose(pairs.measured[i].mean(0), record.target[i], atol=1e-5)
        np.testing.assert_array_equal(pairs.measured[i], turned.measured[-1 - i])


def test_without_cells_or_with_a_gene_missing_it_is_undefined(record: Pseudobulk) -> None:
    prediction = record.target.astype(np.float64)
    assert np.isnan(e_distance(profiles(record, prediction, None))).all()
    prediction[2, 3] = np.nan
    found = e_distance(profiles(record, prediction, CellPairs.drawn(record, 4)))
    assert np.isnan(found).tolist() == [i == 2 for i in range(len(record))]


def test_predicted_cells_are_controls_moved_by_the_change_and_never_below_zero(record: Pseudobulk) -> None:
    far = predicted_cells(record, record.input_control + 7.0, n_cells=9)
    near = predicted_cells(record, record.input_control, n_cells=9)
    assert far.shape == (len(record), 9, 30)
    np.testing.assert_allclose(far - near, 7.0, atol=1e-5)
    assert predicted_cells(record, record.input_control - 50.0, n_cells=2).max() == 0.0
