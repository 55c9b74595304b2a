"""Does a device compute the gradients that another does? Some have computed wrong ones without a word."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class GradientReport:
    """How far a device is from the reference.

    Attributes:
        device: The device.
        reference: What it was compared with.
        off: Output or gradient -> largest difference relative to its largest entry; infinite where it is no number.
        rtol: How much is allowed.
    """

    device: str
    reference: str
    off: Mapping[str, float]
    rtol: float

    @property
    def agree(self) -> bool:
        """Whether nothing is further off than allowed."""
        return not self.wrong

    @property
    def wrong(self) -> list[str]:
        """What is further off than allowed, worst first."""
        return sorted((name for name, far in self.off.items() if not far <= self.rtol), key=lambda n: -self.off[n])

    def __str__(self) -> str:
        if self.agree:
            return f"{self.device} agrees with {self.reference}: at most {max(self.off.values()):.1e} off"
        named = ", ".join(f"{name} by {self.off[name]:.1e}" for name in self.wrong[:4])
        return f"{self.device} does not agree with {self.reference} to {self.rtol:.0e}: {named}"


def gradients_agree(
    module: nn.Module,
    inputs: Sequence[Tensor],
    device: str,
    reference: str = "cpu",
    rtol: float = 1e-3,
    run: Callable[..., Tensor] | None = None,
) -> GradientReport:
    """Compare the output and all gradients of one step on two devices, in float32.

    Both run a copy of the module with equal weights on equal inputs; the output is weighed by a fixed random tensor,
    so that no gradient cancels.

    Args:
        module: What is run; its modules and buffers are copied to each device.
        inputs: Its inputs; gradients are taken of the floating ones too.
        device: The device in doubt.
        reference: The device that is trusted.
        rtol: Largest difference allowed, relative to the largest entry of each tensor.
        run: ``run(module, *inputs)`` gives the output; by default ``module(*inputs)``.
    """
    found = [_step(module, inputs, name, run) for name in (device, reference)]
    off = {name: _off(found[0].get(name), right) for name, right in found[1].items()}
    return GradientReport(device, reference, off, rtol)


def _step(
    module: nn.Module, inputs: Sequence[Tensor], device: str, run: Callable[..., Tensor] | None
) -> dict[str, Tensor]:
    """Output and gradients on a device, brought to the CPU as float64."""
    mine = copy.deepcopy(module).to(device)
    mine.zero_grad()
    given = [each.detach().to(device, copy=True) for each in inputs]
    for each in given:
        each.requires_grad_(each.is_floating_point())
    out = mine(*given) if run is None else run(mine, *given)
    generator = torch.Generator().manual_seed(0)
    weigh = torch.randn(out.shape, generator=generator).to(device, out.dtype)
    (out * weigh).sum().backward()
    found: dict[str, Tensor | None] = {"output": out.detach()}
    found |= {f"gradient of {name}": parameter.grad for name, parameter in mine.named_parameters()}
    found |= {f"gradient of input {i}": each.grad for i, each in enumerate(given)}
    return {name: value.cpu().double() for name, value in found.items() if value is not None}


def _off(value: Tensor | None, right: Tensor) -> float:
    if value is None or not torch.isfinite(value).all():
        return float("inf")
    if not right.numel():
        return 0.0
    return float((value - right).abs().max() / right.abs().max().clamp(min=1e-12))
