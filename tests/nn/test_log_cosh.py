"""log cosh near 0, far out, and with missing targets."""

from __future__ import annotations

import math

import torch

from torchcell.nn.log_cosh import log_cosh, log_cosh_loss


def test_equals_the_naive_form_where_that_is_finite():
    x = torch.linspace(-20, 20, 401, dtype=torch.float64)
    torch.testing.assert_close(log_cosh(x), x.cosh().log(), atol=1e-13, rtol=1e-9)


def test_stays_finite_where_cosh_overflows_and_its_slope_is_tanh():
    x = torch.tensor([-1e4, -0.5, 0.3, 1e4], requires_grad=True)
    value = log_cosh(x)
    torch.testing.assert_close(value[3].item(), 1e4 - math.log(2))
    value.sum().backward()
    torch.testing.assert_close(x.grad, x.detach().tanh())


def test_missing_targets_take_no_part_in_value_or_gradient():
    prediction = torch.tensor([[1.0, 5.0], [2.0, 3.0]], requires_grad=True)
    target = torch.tensor([[0.0, math.nan], [math.nan, 1.0]])
    loss = log_cosh_loss(prediction, target)
    torch.testing.assert_close(loss, (log_cosh(torch.tensor(1.0)) + log_cosh(torch.tensor(2.0))) / 2)
    loss.backward()
    assert torch.isfinite(prediction.grad).all()
    assert prediction.grad[0, 1] == prediction.grad[1, 0] == 0


def test_no_target_at_all_gives_zero_and_no_nan_gradient():
    prediction = torch.ones(3, requires_grad=True)
    loss = log_cosh_loss(prediction, torch.full((3,), math.nan))
    loss.backward()
    assert loss.item() == 0
    assert (prediction.grad == 0).all()
