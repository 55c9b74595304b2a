"""The energy distance against its definition, and at its edges."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import energy_distance as on_a_line

from torchcell.cells.models.gene_set_transformer.model import energy_distance, mean_energy_distance


def test_equals_scipys_on_a_line():
    x, y = torch.randn(3, 7, 1, dtype=torch.float64), torch.randn(3, 5, 1, dtype=torch.float64) + 0.5
    # SciPy gives the root of it.
    wanted = [on_a_line(a.flatten().numpy(), b.flatten().numpy()) ** 2 for a, b in zip(x, y, strict=True)]
    assert energy_distance(x, y).tolist() == pytest.approx(wanted)


def test_is_zero_with_finite_gradients_for_equal_samples():
    x = torch.randn(2, 4, 6, requires_grad=True)
    distance = energy_distance(x, x.detach()[:, [2, 0, 3, 1]])
    torch.testing.assert_close(distance, torch.zeros(2), atol=1e-6, rtol=0)
    distance.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_falls_as_a_sample_is_moved_onto_the_other():
    y = torch.randn(1, 8, 5)
    far, near = (energy_distance(y + shift, y) for shift in (2.0, 0.5))
    assert far > near > 0


def test_sets_that_are_not_measured_count_for_nothing():
    x, y = torch.randn(3, 4, 5, requires_grad=True), torch.randn(3, 4, 5)
    y[1] = torch.nan
    value = mean_energy_distance(x, y)
    torch.testing.assert_close(value, energy_distance(x, y)[[0, 2]].mean())
    value.backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[1].any()
    assert mean_energy_distance(x, torch.full_like(y, torch.nan)).item() == 0
