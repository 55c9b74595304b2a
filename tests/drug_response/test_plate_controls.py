"""A control belongs to its own plate, whichever way it is matched."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.drug_response.plates import line_plates, matched_controls
from torchcell.io.errors import InputError

PLATE = np.array(["P2", "P1", "P1", "P2", "P1", "P2", "P1"])
CONTROL = np.array([True, True, False, False, True, True, False])
VALUES = np.random.default_rng(0).normal(8, 2, (7, 5)).astype(np.float32)


def test_the_centroid_is_the_mean_of_the_plates_own_control_wells() -> None:
    matched = matched_controls(VALUES, PLATE, CONTROL)
    for plate in ("P1", "P2"):
        own = plate == PLATE
        expected = VALUES[own & CONTROL].mean(0, dtype=np.float64)
        np.testing.assert_allclose(matched[own], np.broadcast_to(expected, (own.sum(), 5)), rtol=1e-6)


def test_a_pair_is_one_control_well_of_the_plate_and_never_itself() -> None:
    matched = matched_controls(VALUES, PLATE, CONTROL, "paired", seed=3)
    for i, row in enumerate(matched):
        (at,) = np.flatnonzero((row == VALUES).all(1))
        assert CONTROL[at]
        assert PLATE[at] == PLATE[i]
        assert at != i
    np.testing.assert_array_equal(matched, matched_controls(VALUES, PLATE, CONTROL, "paired", seed=3))
    many = [matched_controls(VALUES, PLATE, CONTROL, "paired", seed=s)[2] for s in range(20)]
    assert len(np.unique(many, axis=0)) == 2  # both wells of P1 are drawn


def test_plates_without_control_wells_are_named() -> None:
    with pytest.raises(InputError, match=r"1 plate\(s\) without control wells: 'P2'"):
        matched_controls(VALUES, PLATE, CONTROL & (PLATE == "P1"))
    with pytest.raises(InputError, match="no way to match controls called 'mean'"):
        matched_controls(VALUES, PLATE, CONTROL, "mean")


def test_lines_that_share_a_plate_have_controls_of_their_own() -> None:
    plate, line = np.array(["P1", "P1", "P2"]), np.array(["A375", "PC3", "PC3"])
    assert line_plates(plate, line).tolist() == ["P1 (A375)", "P1 (PC3)", "P2"]
