"""Owners of members, and ranges written out."""

from __future__ import annotations

import torch

from torchcell.graph.cell_graph import expand, owner


def test_each_member_has_its_set_and_an_empty_set_has_none():
    assert owner(torch.tensor([0, 2, 2, 3]), 3).tolist() == [0, 0, 2]


def test_ranges_are_written_out_one_after_the_other():
    numbers, whose = expand(torch.tensor([5, 9, 0]), torch.tensor([2, 0, 3]))
    assert numbers.tolist() == [5, 6, 0, 1, 2]
    assert whose.tolist() == [0, 0, 2, 2, 2]
