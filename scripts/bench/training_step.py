"""A training step on the Costanzo pairs: loader's share, and for DANGO seconds an epoch and peak memory."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from target import Target, at_most

from torchcell.training import build as assemble
from torchcell.training import checkpoint
from torchcell.training.entry import conf_dir

PAIRS = 133_000
"""Training pairs of an epoch that the target speaks of, four fifths of the screen."""


@dataclass(frozen=True)
class Step:
    """Mean seconds of a step, of which loading; and the batch size."""

    seconds: float
    loading: float
    batch_size: int

    @property
    def share(self) -> float:
        """The loader's, in percent."""
        return 100 * self.loading / self.seconds


def run() -> list[Target]:
    """DANGO, and the network on the perturbed cell, at the batch sizes of their experiments."""
    dango = timed("costanzo2010_dango")
    peak = _peak_mb()
    lazy = timed("costanzo2010_gnn_lazy")
    return [
        at_most("loader's share of a DANGO step", dango.share, 2, "%"),
        at_most(f"DANGO, an epoch of {PAIRS:,} Costanzo pairs", dango.seconds * PAIRS / dango.batch_size, 60, "s"),
        at_most("DANGO on Costanzo, peak memory", peak, 4_000, "MB"),
        at_most("loader's share of a step of the network on the perturbed cell", lazy.share, 2, "%"),
    ]


def timed(experiment: str, steps: int = 20) -> Step:
    """Time loader and whole step apart, after three steps to warm up."""
    mirror = Path(__file__).resolve().parents[3] / "shared" / "data"
    os.environ.setdefault("TORCHCELL_MIRROR", str(mirror))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", [f"+experiment={experiment}", "baselines=none"])
    data = assemble.datamodule(cfg)
    model = checkpoint.built(cfg.model, data.spec)
    optimizer = model.optimizer(model.parameter_groups())
    loader = iter(data.loader("train", shuffle=True))
    loading = working = 0.0
    for step in range(-3, steps):
        start = time.perf_counter()
        batch = next(loader)
        loaded = time.perf_counter()
        prediction = model(batch)
        loss = torch.stack(list(model.losses(batch, prediction).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= 0:
            loading += loaded - start
            working += time.perf_counter() - loaded
    taken = Step((loading + working) / steps, loading / steps, cfg.data.batch_size)
    text = f"{experiment}, B = {taken.batch_size:,}: {1e3 * taken.seconds:.1f} ms a step, "
    text += f"{taken.batch_size / taken.seconds:,.0f} samples/s, {batch.nbytes:,} bytes a batch"
    Console(width=120).print(text)
    return taken


def _peak_mb() -> float:
    """Peak resident set of this process; Linux counts it in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
