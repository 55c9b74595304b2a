"""A DANGO step on the Costanzo pairs: loader's share, seconds an epoch, peak memory."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.console import Console
from target import Target, at_most

from torchcell.run import assemble
from torchcell.run.entry import conf_dir

PAIRS = 133_000
"""Training pairs of an epoch that the target speaks of, four fifths of the screen."""


def run(steps: int = 30) -> list[Target]:
    """Time loader and whole step apart, at B = 1,024."""
    mirror = Path(__file__).resolve().parents[3] / "shared" / "data"
    os.environ.setdefault("TORCHCELL_MIRROR", str(mirror))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", ["+experiment=costanzo2010_dango", "baselines=none"])
    data = assemble.datamodule(cfg)
    model = instantiate(cfg.model, _partial_=True)(spec=data.spec)
    optimizer = cfg.model.optimizer and model.optimizer(model.parameter_groups())
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
        if step >= 0:  # the first three warm up
            loading += loaded - start
            working += time.perf_counter() - loaded
    per_step = (loading + working) / steps
    epoch = per_step * PAIRS / cfg.data.batch_size
    text = f"DANGO on Costanzo, B = {cfg.data.batch_size:,}: {1e3 * per_step:.1f} ms a step, "
    Console(width=120).print(text + f"{cfg.data.batch_size / per_step:,.0f} samples/s, {batch.nbytes:,} bytes a batch")
    return [
        at_most("loader's share of a DANGO step", 100 * loading / (loading + working), 2, "%"),
        at_most(f"DANGO, an epoch of {PAIRS:,} Costanzo pairs", epoch, 60, "s"),
        at_most("DANGO on Costanzo, peak memory", _peak_mb(), 4_000, "MB"),
    ]


def _peak_mb() -> float:
    """Peak resident set of this process; Linux counts it in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
