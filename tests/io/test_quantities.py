"""Doses and times with and without units."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.io.quantities import TO_HOURS, TO_MICROMOLAR, quantities


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("10", "", 10), ("10 µM", "", 10), ("500 nM", "", 0.5), ("0.04", "um", 0.04), ("1e-2 mM", "", 10),
        ("3", "nM", 0.003), ("-666", "", -666), ("2 μM", "", 2),
    ],
)  # fmt: skip
def test_a_dose_is_read_in_micromolar(value: str, unit: str, expected: float) -> None:
    numbers, odd = quantities(np.array([value]), np.array([unit]), TO_MICROMOLAR)
    np.testing.assert_allclose(numbers, [expected])
    assert not odd.any()


def test_a_time_is_read_in_hours_and_what_is_none_is_marked() -> None:
    values = np.array(["24 h", "1 d", "90 min", "", "6 h & 4 h", "soon", "3 weeks", "1.2.3"])
    numbers, odd = quantities(values, np.full(8, ""), TO_HOURS)
    np.testing.assert_allclose(numbers[:3], [24, 24, 1.5])
    assert np.isnan(numbers[3:]).all()
    assert odd.tolist() == [False] * 4 + [True] * 4
