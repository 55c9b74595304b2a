"""1 - Pearson of changes over genes: against numpy, and where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchcell.nn.losses import profile_distance


def test_is_one_minus_the_mean_pearson_over_genes():
    y, yhat, x = torch.randn(3, 5, 9).unbind()
    expected = 1 - np.mean([np.corrcoef((y - x)[i], (yhat - x)[i])[0, 1] for i in range(5)])
    assert float(profile_distance(yhat, y, x)) == pytest.approx(expected, abs=1e-5)


def test_missing_genes_and_samples_are_left_out():
    y, yhat, x = torch.randn(3, 4, 9).unbind()
    whole = profile_distance(yhat[:3, :6], y[:3, :6], x[:3, :6])
    y, x = y.clone(), x.clone()
    y[:, 6:] = torch.nan
    x[3] = torch.nan
    torch.testing.assert_close(profile_distance(yhat, y, x), whole)


def test_no_change_at_all_has_a_finite_gradient():
    x = torch.randn(2, 9)
    yhat = x.clone().requires_grad_()
    loss = profile_distance(yhat, x + torch.randn(2, 9), x)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.0)
    assert torch.isfinite(yhat.grad).all()
