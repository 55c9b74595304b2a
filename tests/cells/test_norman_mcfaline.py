"""The Norman and McFaline parts with their known counts and traps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from torchcell.cells.sources import norman_mcfaline, norman_mcfaline_cells
from torchcell.io.errors import InputError

pytestmark = pytest.mark.mirror


def test_the_counts_are_the_known_ones(mirror: Path) -> None:
    cells = norman_mcfaline_cells()
    assert cells.X.shape == (5_961, 500)
    lines, counts = np.unique(cells.covariates["cell_line"], return_counts=True)
    assert dict(zip(lines.tolist(), counts.tolist(), strict=True)) == {
        "A172": 850, "K562": 3_375, "T98G": 871, "U87MG": 865,
    }  # fmt: skip
    labels = np.unique(cells.perturbation[~cells.is_control]).tolist()
    doubles = [label.split("+") for label in labels if "+" in label]
    assert (len(labels), len(doubles)) == (33, 15)
    assert sum(a in labels and b in labels for a, b in doubles) == 5
    for line in lines.tolist():
        assert (cells.is_control & (cells.covariates["cell_line"] == line)).sum() == 100


def test_five_doubles_have_both_singles_in_their_own_line() -> None:
    labels = norman_mcfaline("K562").perturbation.tolist()
    pairs = [label.split("+") for label in labels if "+" in label]
    assert [sum(gene in labels for gene in pair) for pair in pairs].count(2) == 5


def test_lines_are_chosen_by_name_and_controls_are_of_the_line() -> None:
    record = norman_mcfaline(["A172", "T98G"]).validate()
    assert len(record) == 18
    assert np.diff(record.control_ptr).tolist() == [50] * 4  # two halves of each line
    assert len(norman_mcfaline()) == 60
    with pytest.raises(InputError, match="no cell line 'HELA'; the lines are A172, K562"):
        norman_mcfaline("HELA")
