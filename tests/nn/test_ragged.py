"""Padding and segment operators against loops over the sets."""

from __future__ import annotations

from itertools import pairwise

import torch

from torchcell.graph.cell_graph import owner
from torchcell.nn.ragged import pad, segment_mean, segment_sum

PTR = torch.tensor([0, 2, 2, 5, 6])


def test_pad_puts_each_set_in_its_row():
    index, mask = pad(PTR)
    assert index.tolist() == [[0, 1, 0], [0, 0, 0], [2, 3, 4], [5, 0, 0]]
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3, [True, False, False]]


def test_pad_of_no_sets_is_empty():
    index, mask = pad(torch.tensor([0]))
    assert index.shape == mask.shape == (0, 0)


def test_owner_repeats_each_set_by_its_size():
    assert owner(PTR, 6).tolist() == [0, 0, 2, 2, 2, 3]


def test_segment_sum_and_mean_equal_a_loop_and_are_zero_for_an_empty_set():
    x = torch.randn(6, 3, dtype=torch.float64)
    sets = [x[a:b] for a, b in pairwise(PTR.tolist())]
    torch.testing.assert_close(segment_sum(x, PTR), torch.stack([part.sum(0) for part in sets]))
    means = [part.mean(0) if len(part) else torch.zeros(3).double() for part in sets]
    torch.testing.assert_close(segment_mean(x, PTR), torch.stack(means))
