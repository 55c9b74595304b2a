"""The plate's center is made of training samples alone, of others than the sample itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from torchcell.drug_response.plates import FEWEST, plate_center
from torchcell.drug_response.simulate import simulate_response


def test_it_is_the_mean_of_the_other_training_samples_of_the_plate() -> None:
    record = simulate_response(n_replicates=2).response
    train = np.arange(len(record)) % 3 != 0
    center = plate_center(record, train)
    for i in (0, 1):  # one in test, one in training
        others = (record.plate == record.plate[i]) & train & (np.arange(len(record)) != i)
        np.testing.assert_allclose(center[i], record.treated[others].mean(0), rtol=1e-5)


def test_no_test_value_and_no_value_of_its_own_moves_it() -> None:
    record = simulate_response(n_replicates=2).response
    train = np.arange(len(record)) % 3 != 0
    spoilt = record.treated.copy()
    spoilt[~train] = 1e6
    own = record.treated.copy()
    own[1] = 1e6
    center = plate_center(record, train)
    np.testing.assert_array_equal(plate_center(replace(record, treated=spoilt), train), center)
    np.testing.assert_array_equal(plate_center(replace(record, treated=own), train)[1], center[1])


def test_a_plate_with_few_samples_gets_its_lines_mean() -> None:
    record = simulate_response(n_replicates=2).response
    plate = record.plate.copy()
    plate[0] = "alone"
    train = np.ones(len(record), dtype=bool)
    lone = replace(record, plate=plate)
    of_line = (record.cell_line == record.cell_line[0]) & (np.arange(len(record)) != 0)
    assert of_line.sum() >= FEWEST
    np.testing.assert_allclose(plate_center(lone, train)[0], record.treated[of_line].mean(0), rtol=1e-5)


def test_a_line_outside_training_has_none():
    record = simulate_response(n_replicates=2).response
    away = record.cell_line == record.cell_line[0]
    center = plate_center(record, ~away)
    assert np.isnan(center[away]).all()
    assert np.isfinite(center[~away]).all()


def test_lines_that_share_a_plate_have_a_center_each():
    record = simulate_response(n_replicates=2).response
    one_plate = replace(record, plate=np.full(len(record), "P1"))
    train = np.ones(len(record), dtype=bool)
    of_line = (record.cell_line == record.cell_line[0]) & (np.arange(len(record)) != 0)
    np.testing.assert_allclose(plate_center(one_plate, train)[0], record.treated[of_line].mean(0), rtol=1e-5)
