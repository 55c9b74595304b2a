"""What a run's memory options cost and save: a training step with each and without, for its report."""

from __future__ import annotations

import copy
import math
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf

from torchcell.datamodules.base import RecordDataModule
from torchcell.report.layout import number
from torchcell.report.sections import Section
from torchcell.run.assemble import PRECISIONS
from torchcell.run.memory import is_out_of_memory, memory_options
from torchcell.run.processes import Process
from torchcell.run.profiling import Plan, Subject, measure

HEADS = {"tensors_mb": "MB of tensors", "busy_ms": "ms a step"}
PLAN = Plan(steps=3, warmup=1, max_seconds=5.0)


def options_on(cfg: DictConfig) -> dict[str, Any]:
    """The config's values of the memory options that are on in it."""
    plain = memory_options(cfg)
    values = {key: OmegaConf.select(cfg, key) for key in plain}
    if PRECISIONS.get(str(values["trainer.precision"])) is None:  # 32 bits by any name, or what can't be measured
        values["trainer.precision"] = None
    return {key: value for key, value in values.items() if value not in (None, plain[key])}


def memory_sections(
    cfg: DictConfig, data: RecordDataModule, device: torch.device, samples_per_s: float
) -> list[Section]:
    """A table of this run's step against the plain one, and of each option alone where there are several.

    Fresh models of the run's config take a few steps, in one process; the run's own weights and random state stay.

    Args:
        cfg: Of the run; ``evaluation.lever_step_s`` says how long a step of it may take, by fewer samples a batch.
        data: Its data.
        device: Where it was trained.
        samples_per_s: Speed of one process while it was.

    Returns:
        One section; none where nothing saves memory, or nothing is to be measured.
    """
    on, plain, seconds = options_on(cfg), memory_options(cfg), cfg.evaluation.lever_step_s
    if not on or seconds is None:
        return []
    fits = seconds * samples_per_s
    size = max(1, min(data.batch_size, int(fits) if math.isfinite(fits) else 1))
    rows: dict[str, dict[str, Any]] = {
        "plain": {},
        **{_override(key, value): {key: value} for key, value in on.items()},
        "this run": on,
    }
    if len(on) == 1:
        del rows["this run"]  # is that one
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        costs = {
            name: _cost(_changed(cfg, {key: plain[key] for key in on} | chosen), data, device, size)
            for name, chosen in rows.items()
        }
    table = pd.DataFrame([{"setting": name} | _cells(cost, costs["plain"]) for name, cost in costs.items()])
    text = (
        f"A training step of {size} sample(s) on the {device.type}, after the run, with fresh weights and without "
        "a curriculum: the most that tensors held at once above weights and the optimiser's state, and its time (of "
        "the processor on a CPU). Plain has " + ", ".join(_override(key, plain[key]) for key in on) + ". "
        "python -m torchcell.profile measures at length, and what this run has not switched on."
    )
    return [Section("What memory options cost and save", text, table=table)]


def _override(key: str, value: Any) -> str:
    """As it stands on the command line."""
    return f"{key}={str(value).lower()}"


def _changed(cfg: DictConfig, values: dict[str, Any]) -> DictConfig:
    """A copy of the config with other values."""
    changed = copy.deepcopy(cfg)
    for key, value in values.items():
        OmegaConf.update(changed, key, value)
    return changed


def _cost(cfg: DictConfig, data: RecordDataModule, device: torch.device, size: int) -> dict[str, float] | None:
    """What a full step takes; none where it does not fit."""
    process = Process(device)
    try:
        return measure(Subject(cfg, data, process, size), "full step", PLAN, process)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _cells(cost: dict[str, float] | None, plain: dict[str, float] | None) -> dict[str, str]:
    """Memory and time of a step, and their shares of the plain one's."""
    if cost is None:
        return dict.fromkeys(HEADS.values(), "does not fit")
    found: dict[str, str] = {}
    for column, head in HEADS.items():
        found[head] = number(cost[column])
        found[f"{head}, of plain"] = "" if plain is None else f"{number(cost[column] / plain[column])}x"
    return found
