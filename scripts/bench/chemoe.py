"""A step of CheMoE at 10,716 genes and B = 64: sent rows and a first layer in two parts, against the dense form.

The dense form runs all experts on all samples, with a row [h, gamma] of 512 for each pair, and keeps what backward
needs: at B = 64 ten gigabytes. So it is measured at B = 16 and taken four times; its time and memory grow with B.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from target import Target, at_least, at_most
from torch import Tensor

from torchcell.drug_response.models.chemoe.model import GeneExpert, MixtureOfExperts, Router
from torchcell.training.profile import PeakMemory

GENES, SAMPLES, PART = 10_716, 64, 16
FEATURES, WIDTH, EXPERTS, TOP_K = 384, 128, 4, 2


def run() -> list[Target]:
    """Time and memory of a step, forward and backward, and how far the two forms are apart."""
    torch.manual_seed(0)
    experts = [GeneExpert(FEATURES, WIDTH) for _ in range(EXPERTS)]
    mixture = MixtureOfExperts(Router(FEATURES, EXPERTS, TOP_K), experts)
    h_BH, gamma_GD = torch.randn(SAMPLES, FEATURES), torch.randn(GENES, WIDTH).requires_grad_()
    ours = _measured(lambda: mixture(h_BH, gamma_GD)[0])
    quarter = _measured(lambda: dense_form(mixture, h_BH[:PART], gamma_GD))
    dense = tuple(SAMPLES / PART * value for value in quarter)
    _show({"sent, first layer in two parts": ours, f"dense, {SAMPLES // PART} times B = {PART}": dense})
    with torch.no_grad():
        few = h_BH[:4]
        found, expected = mixture(few, gamma_GD)[0], dense_form(mixture, few, gamma_GD)
        off = float((found - expected).abs().max() / expected.abs().max())
    return [
        at_least("CheMoE step at 10,716 genes, B = 64, against dense: time", dense[0] / ours[0], 4),
        at_least("CheMoE step at 10,716 genes, B = 64, against dense: memory", dense[1] / ours[1], 4),
        at_most("CheMoE against dense, largest relative difference", off, 1e-5, ""),
    ]


def dense_form(mixture: MixtureOfExperts, h_BH: Tensor, gamma_GD: Tensor) -> Tensor:
    """All experts on all samples, on [h, gamma] written out for each pair."""
    weight_BE = mixture.router(h_BH).weight_BE()
    shape = len(h_BH), len(gamma_GD), -1
    pair_BGF = torch.cat([h_BH[:, None].expand(shape), gamma_GD.expand(shape)], 2)
    total_BG = h_BH.new_zeros(shape[:2])
    for number, f in enumerate(mixture.experts):
        assert isinstance(f, GeneExpert)
        x_BGK = f.second(f.first_norm(f.first(pair_BGF)).relu())
        total_BG = total_BG + weight_BE[:, number, None] * f.last(f.second_norm(x_BGK).relu()).squeeze(-1)
    return total_BG


def _measured(way: Callable[[], Tensor]) -> tuple[float, float]:
    """Seconds of the processor, as others share it, and megabytes of a step, once: it takes seconds."""
    with PeakMemory(torch.device("cpu")) as peak:
        start = time.process_time()
        way().square().mean().backward()
        taken = time.process_time() - start
    return taken, peak.megabytes


def _show(rows: dict[str, tuple[float, ...]]) -> None:
    table = Table(
        title=f"CheMoE, {EXPERTS} experts, {TOP_K} a sample, {GENES:,} genes, B = {SAMPLES}, "
        f"{torch.get_num_threads()} thread(s)",
        title_justify="left",
    )
    for column in ("way", "s a step", "peak MB"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, (taken, memory) in rows.items():
        table.add_row(name, f"{taken:,.1f}", f"{memory:,.0f}")
    Console(width=120).print(table)
