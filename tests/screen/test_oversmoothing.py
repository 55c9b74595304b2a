"""Oversmoothing and effective rank against their closed forms."""

from __future__ import annotations

import torch

from torchcell.screen.models.perturbed_cell_gnn.model import effective_rank, oversmoothing


def test_equal_rows_are_fully_smoothed():
    assert float(oversmoothing(torch.ones(6, 4))) == 0
    torch.testing.assert_close(effective_rank(torch.ones(6, 4)), torch.tensor(1.0), atol=1e-3, rtol=0)


def test_orthogonal_centered_rows_are_not_smoothed_at_all():
    x = torch.cat([torch.eye(4), -torch.eye(4)])
    torch.testing.assert_close(oversmoothing(x), torch.tensor(1.0))
    torch.testing.assert_close(effective_rank(x), torch.tensor(4.0))


def test_scaling_changes_neither():
    x = torch.randn(20, 5)
    torch.testing.assert_close(oversmoothing(x), oversmoothing(1000 * x))
    torch.testing.assert_close(effective_rank(x), effective_rank(1000 * x))


def test_all_zeros_are_undefined():
    assert torch.isnan(oversmoothing(torch.zeros(3, 2)))
    assert torch.isnan(effective_rank(torch.zeros(3, 2)))


def test_a_number_that_is_not_finite_is_undefined_and_no_crash():
    assert torch.isnan(effective_rank(torch.tensor([[1.0, torch.nan], [0.0, 1.0]])))
