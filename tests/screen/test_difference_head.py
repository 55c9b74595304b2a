"""The head on what a cell loses: nothing lost is a valid input, and sizes of any order are."""

from __future__ import annotations

import torch

from torchcell.screen.models.perturbed_cell_gnn.model import DifferenceHead


def test_shape_and_repr():
    assert DifferenceHead(5, 3, 8)(torch.randn(4, 5)).shape == (4, 3)
    assert "DifferenceHead" in repr(DifferenceHead(5, 3, 8))


def test_a_set_without_any_effect_has_a_finite_score_and_gradient():
    z = torch.zeros(2, 5, requires_grad=True)
    out = DifferenceHead(5, 1, 8)(z)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(z.grad).all()


def test_the_size_of_a_difference_tells_two_sets_of_one_direction_apart():
    z = torch.randn(1, 5)
    small, large = DifferenceHead(5, 1, 8)(torch.cat([z, 1000 * z]))
    assert not torch.allclose(small, large)
