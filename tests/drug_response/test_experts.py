"""The section on experts: shares within lines and doses, dead experts, no counts."""

from __future__ import annotations

import numpy as np

from torchcell.drug_response.models.chemoe.usage import expert_section


def test_columns_add_up_to_one_and_empty_ones_are_left_out():
    line = np.array([[3.0, 0, 0], [1.0, 2.0, 0], [0, 2.0, 0]])
    dose = np.array([[3.0, 0], [3.0, 0], [2.0, 0]])
    section = expert_section(line, dose, ["A375", "HT115"], ["1", "10"], 0.987, [])
    assert list(section.table.columns) == ["expert", "share", "A375", "HT115", "1"]
    assert section.table["A375"].tolist() == [0.75, 0.25, 0.0]
    assert "Entropy 0.99 of the 3 experts' shares" in section.text
    assert "no expert is dead" in section.text
    assert "comparators=[CKPT]" in section.text
    assert [axis.get_xlabel() for axis in section.figure.axes[:2]] == ["cell line", "dose in µM"]


def test_dead_experts_are_named():
    line = np.array([[5.0, 0], [5.0, 0], [0, 0]])
    assert "dead: [2]" in expert_section(line, line, ["A375"], ["1", "10"], 0.63, [2]).text


def test_nothing_counted_is_said():
    section = expert_section(np.zeros((2, 2)), np.zeros((2, 2)), ["A375"], ["1", "10"], 0.0, [0, 1])
    assert section.figure is None
    assert "No epoch" in section.text
