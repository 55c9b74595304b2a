"""log cosh near 0, far out, and with missing targets."""

from __future__ import annotations

import math

import torch

from torchcell.nn.losses import log_cosh


def test_equals_the_naive_form_where_that_is_finite():
    x = torch.linspace(-20, 20, 401, dtype=torch.float64)
    torch.testing.assert_close(log_cosh(x), x.cosh().log(), atol=1e-13, rtol=1e-9)


def test_stays_finite_where_cosh_overflows_and_its_slope_is_tanh():
    x = torch.tensor([-1e4, -0.5, 0.3, 1e4], requires_grad=True)
    value = log_cosh(x)
    torch.testing.assert_close(value[3].item(), 1e4 - math.log(2))
    value.sum().backward()
    torch.testing.assert_close(x.grad, x.detach().tanh())
