"""The accelerator of a run: CUDA or the CPU by itself, MPS only after a check of its gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchcell.graph.cell_graph import CSR
from torchcell.io.errors import InputError
from torchcell.nn.hgt import TypedHGT


@dataclass(frozen=True)
class GradientReport:
    """How far results of a device differ from those of a reference device.

    Attributes:
        device: The device.
        reference: The reference device.
        off: Output or gradient -> largest difference relative to its largest entry; infinite where it is not finite.
        rtol: Allowed difference.
    """

    device: str
    reference: str
    off: Mapping[str, float]
    rtol: float

    @property
    def agree(self) -> bool:
        """Whether all differences are allowed."""
        return not self.wrong

    @property
    def wrong(self) -> list[str]:
        """Names with a larger difference than allowed, worst first."""
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
        module: The module; it is copied to each device.
        inputs: Its inputs; gradients are taken of the floating ones too.
        device: The device in doubt.
        reference: The device that is trusted.
        rtol: Largest difference allowed, relative to the largest entry of each tensor.
        run: ``run(module, *inputs)`` gives the output; by default ``module(*inputs)``.
    """
    tested, expected = (_step(module, inputs, name, run) for name in (device, reference))
    off = {name: _off(tested.get(name), right) for name, right in expected.items()}
    return GradientReport(device, reference, off, rtol)


def _step(
    module: nn.Module, inputs: Sequence[Tensor], device: str, run: Callable[..., Tensor] | None
) -> dict[str, Tensor]:
    """Output and gradients on a device, brought to the CPU as float64."""
    moved = copy.deepcopy(module).to(device)
    moved.zero_grad()
    tensors = [tensor.detach().to(device, copy=True) for tensor in inputs]
    for tensor in tensors:
        tensor.requires_grad_(tensor.is_floating_point())
    out = moved(*tensors) if run is None else run(moved, *tensors)
    generator = torch.Generator().manual_seed(0)
    weigh = torch.randn(out.shape, generator=generator).to(device, out.dtype)
    (out * weigh).sum().backward()
    results: dict[str, Tensor | None] = {"output": out.detach()}
    results |= {f"gradient of {name}": parameter.grad for name, parameter in moved.named_parameters()}
    results |= {f"gradient of input {i}": tensor.grad for i, tensor in enumerate(tensors)}
    return {name: value.cpu().double() for name, value in results.items() if value is not None}


def _off(value: Tensor | None, right: Tensor) -> float:
    if value is None or not torch.isfinite(value).all():
        return float("inf")
    if not right.numel():
        return 0.0
    return float((value - right).abs().max() / right.abs().max().clamp(min=1e-12))


FEATURES, HEADS, NODES, EDGES = 64, 4, (3_000, 500, 200), 20_000
"""Sizes of the checked layer: widths as in training, and enough edges for parallel sums."""


def check_accelerator(
    name: str, device: str = "mps", check: Callable[[str], GradientReport] | None = None, available: bool | None = None
) -> str:
    """The accelerator for Lightning's trainer from the one that the config names.

    Args:
        name: ``trainer.accelerator``. ``auto`` is CUDA where there is a GPU, else the CPU, and never MPS.
        device: Device of the MPS check; another one in tests.
        check: The check; by default ``check_gradients``.
        available: Whether MPS is available; by default as torch says.

    Raises:
        InputError: MPS chosen by name where there is none, or where its gradients differ from the CPU's.
    """
    if name == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    if name != "mps":
        return name
    if not (torch.backends.mps.is_available() if available is None else available):
        raise InputError("trainer.accelerator=mps, but torch finds no MPS device here; use trainer=cpu")
    report = (check or check_gradients)(device)
    if not report.agree:
        raise InputError(
            f"trainer.accelerator=mps is refused: {report}. A model would train on wrong gradients; "
            "use trainer=cpu, or another version of torch"
        )
    return name


def check_gradients(device: str) -> GradientReport:
    """Compare one layer of typed attention on a graph of three node types, on ``device`` and on the CPU."""
    generator = torch.Generator().manual_seed(0)
    relations = [(0, 0), (0, 1), (1, 0), (2, 1)]
    csrs = [_random_csr(NODES[target], NODES[source], generator) for source, target in relations]
    bounds = [0, NODES[0], NODES[0] + NODES[1], sum(NODES)]
    x_ND = torch.randn(sum(NODES), FEATURES, generator=generator)
    layer = TypedHGT(FEATURES, relations, len(NODES), HEADS)
    parts = [part for csr in csrs for part in csr]

    def run(layer: nn.Module, x_ND: Tensor, *parts: Tensor) -> Tensor:
        matrices = [CSR(*(part.detach() for part in parts[i : i + 3])) for i in range(0, len(parts), 3)]
        return layer(x_ND, bounds, matrices)

    return gradients_agree(layer, [x_ND, *parts], device, run=run)


def _random_csr(n_rows: int, n_columns: int, generator: torch.Generator) -> CSR:
    row = torch.randint(n_rows, (EDGES,), generator=generator)
    count = torch.bincount(row, minlength=n_rows)
    indptr = torch.cat([count.new_zeros(1), count.cumsum(0)]).int()
    indices = torch.randint(n_columns, (EDGES,), generator=generator).int()
    return CSR(indptr, indices, torch.ones(EDGES))
