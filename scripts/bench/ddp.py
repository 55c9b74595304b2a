"""DANGO in two processes of one thread each against one process on one core, at 4,096 samples a process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console
from target import Target

from torchcell.training import build as assemble
from torchcell.training.distributed.processes import DistributedContext, run_in_processes
from torchcell.training.entry import conf_dir
from torchcell.training.profile import Subject

BATCH, ROUNDS, STEPS = 4_096, 9, 4
CELL = ("data.record.n_sets=20000", "data.record.n_queries=96", "data.record.n_arrays=400")


def run() -> list[Target]:
    """Rounds of one process alone and of both, in turn, so that a busy machine slows both alike."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = ["+experiment=simulated_dango", "trainer=ddp_cpu", "data.batch_size=4096", *CELL]
        cfg = compose("config", overrides)
    alone, both = run_in_processes(rounds, cfg)
    ratio = statistics.median(b / a for a, b in zip(alone, both, strict=True))
    text = f"DANGO, B = {BATCH:,}: one process {statistics.median(alone):,.0f} samples/s, "
    Console(width=120).print(text + f"two {statistics.median(both):,.0f} samples/s")
    what = "DDP in two processes against one on one core, DANGO samples/s at B = 4,096 each"
    return [Target(what, f"{ratio:.2f}x", ">= 1.50x", ratio >= 1.5)]


def rounds(cfg: DictConfig, process: DistributedContext) -> tuple[list[float], list[float]]:
    """Samples a second of each round: by the first process alone, and by both."""
    torch.set_num_threads(1)
    data = assemble.datamodule(cfg)
    single = Subject(cfg, data, DistributedContext(process.device))
    shared = Subject(cfg, data, process)
    single_batches, shared_batches = single.batches(), shared.batches()
    alone: list[float] = []
    both: list[float] = []
    for number in range(-1, ROUNDS):
        speed = _speed(single, single_batches) if process.rank == 0 else 0.0
        process.gather(speed)  # the second waits, and takes nothing of the first one's core
        mine = _speed(shared, shared_batches)
        together = float(process.gather(mine).min()) * process.world
        if number >= 0:
            alone.append(speed)
            both.append(together)
    return alone, both


def _speed(subject: Subject, batches: Iterator[Any]) -> float:
    """Samples a second over some full steps."""
    samples, start = 0, time.perf_counter()
    while samples < STEPS * BATCH:
        batch = next(batches)
        if len(batch) == BATCH:  # the last of an epoch is smaller
            subject.work("full step", batch)
            samples += BATCH
    return samples / (time.perf_counter() - start)
