"""Which accelerator a run takes: CUDA or the CPU by itself, MPS only after a look at its gradients."""

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


FEATURES, HEADS, NODES, EDGES = 64, 4, (3_000, 500, 200), 20_000
"""Of the layer that is checked: widths as trained, and enough edges for more than one sum to be taken in parallel."""


def check_accelerator(
    name: str, device: str = "mps", check: Callable[[str], GradientReport] | None = None, there: bool | None = None
) -> str:
    """The accelerator that Lightning is to be given for the one that the config names.

    Args:
        name: ``trainer.accelerator``. ``auto`` is CUDA where there is a GPU, else the CPU, and never MPS.
        device: Where the check of MPS runs; another one in tests.
        check: The check; by default ``check_gradients``.
        there: Whether MPS is there; by default torch is asked.

    Raises:
        InputError: MPS asked for by name where there is none, or where its gradients are not the CPU's.
    """
    if name == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    if name != "mps":
        return name
    if not (torch.backends.mps.is_available() if there is None else there):
        raise InputError("trainer.accelerator=mps, but torch finds no MPS device here; use trainer=cpu")
    report = (check or check_gradients)(device)
    if not report.agree:
        raise InputError(
            f"trainer.accelerator=mps is refused: {report}. A model would train on wrong gradients; "
            "use trainer=cpu, or another version of torch"
        )
    return name


def check_gradients(device: str) -> GradientReport:
    """One layer of typed attention on a graph of three kinds, on ``device`` against the CPU."""
    generator = torch.Generator().manual_seed(0)
    relations = [(0, 0), (0, 1), (1, 0), (2, 1)]
    csrs = [_random_csr(NODES[target], NODES[source], generator) for source, target in relations]
    bounds = [0, NODES[0], NODES[0] + NODES[1], sum(NODES)]
    x_ND = torch.randn(sum(NODES), FEATURES, generator=generator)
    layer = TypedHGT(FEATURES, relations, len(NODES), HEADS)
    parts = [part for csr in csrs for part in csr]

    def run(layer: nn.Module, x_ND: Tensor, *parts: Tensor) -> Tensor:
        each = [CSR(*(part.detach() for part in parts[i : i + 3])) for i in range(0, len(parts), 3)]
        return layer(x_ND, bounds, each)

    return gradients_agree(layer, [x_ND, *parts], device, run=run)


def _random_csr(n_rows: int, n_columns: int, generator: torch.Generator) -> CSR:
    row = torch.randint(n_rows, (EDGES,), generator=generator)
    count = torch.bincount(row, minlength=n_rows)
    indptr = torch.cat([count.new_zeros(1), count.cumsum(0)]).int()
    indices = torch.randint(n_columns, (EDGES,), generator=generator).int()
    return CSR(indptr, indices, torch.ones(EDGES))
