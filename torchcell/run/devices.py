"""Which accelerator a run takes: CUDA or the CPU by itself, MPS only by name and after a look at its gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.graph.cell_graph import CSR
from torchcell.nn.gradient_check import GradientReport, gradients_agree
from torchcell.nn.typed_hgt import TypedHGT

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
