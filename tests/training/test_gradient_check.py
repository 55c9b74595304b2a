"""The check of a device's gradients finds what is wrong, on the CPU with wrong gradients injected."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchcell.training.distributed.devices import gradients_agree


class Slip(torch.autograd.Function):
    """x, whose gradient comes back multiplied by ``factor``, but only in one of two runs."""

    factor, calls = 1.0, 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        Slip.calls += 1
        return grad * Slip.factor if Slip.calls == 1 else grad


class Slipping(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.second(Slip.apply(self.first(x).tanh()))


@pytest.fixture
def slip(monkeypatch):
    def set_to(factor: float) -> Slipping:
        monkeypatch.setattr(Slip, "factor", factor)
        monkeypatch.setattr(Slip, "calls", 0)
        torch.manual_seed(0)
        return Slipping()

    return set_to


def test_equal_devices_agree_and_every_gradient_is_looked_at(slip):
    report = gradients_agree(slip(1.0), [torch.randn(3, 4)], "cpu")
    assert report.agree
    parameters = [f"{a}.{b}" for a in ("first", "second") for b in ("weight", "bias")]
    assert set(report.off) == {"output", "gradient of input 0", *(f"gradient of {name}" for name in parameters)}
    assert str(report) == "cpu agrees with cpu: at most 0.0e+00 off"


def test_a_wrong_gradient_is_found_and_named(slip):
    report = gradients_agree(slip(1.1), [torch.randn(3, 4)], "cpu")
    assert set(report.wrong) == {"gradient of first.weight", "gradient of first.bias", "gradient of input 0"}
    assert report.off["gradient of first.weight"] == pytest.approx(0.1, rel=1e-3)
    assert "does not agree" in str(report)
    assert "gradient of first" in str(report)


def test_a_gradient_that_is_no_number_is_wrong(slip):
    assert not gradients_agree(slip(float("nan")), [torch.randn(3, 4)], "cpu").agree


def test_within_the_tolerance_is_right(slip):
    assert gradients_agree(slip(1.0005), [torch.randn(3, 4)], "cpu", rtol=1e-3).agree


def test_the_module_itself_keeps_its_weights_and_has_no_gradient(slip):
    module = slip(1.0)
    gradients_agree(module, [torch.randn(3, 4)], "cpu")
    assert all(parameter.grad is None for parameter in module.parameters())
