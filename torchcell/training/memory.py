"""Out of memory: what needs less, and what the memory options of a run cost."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from torchcell.core.batch import LARGEST_BATCH
from torchcell.core.datamodule import RecordDataModule
from torchcell.io.errors import InputError
from torchcell.report.layout import number
from torchcell.report.sections import Section
from torchcell.training.build import PRECISIONS
from torchcell.training.distributed.processes import DistributedContext
from torchcell.training.profile import Plan, Subject, measure, sizes_of
from torchcell.training.run_folder import RunFolder

SAYINGS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "Unable to allocate")
"""How CUDA, torch's CPU allocator, C++ and numpy say it."""


SIZES = ("dim", "layers", "hidden")
"""Names of the keys of a model, at any depth, of which half a value needs less memory and makes another model."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that an allocation failed, on the GPU or the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in SAYINGS)


def memory_options(cfg: DictConfig) -> dict[str, Any]:
    """Keys whose value may save memory in training, with the plain value that saves none.

    Those that the model's class declares, see ``Model.memory_options``, and the trainer's precision. A key of the same
    name may mean anything to another model, which may refuse the plain value.
    """
    target = OmegaConf.select(cfg, "model._target_")
    declared = {} if target is None else getattr(get_object(target), "memory_options", {})
    return {**{f"model.{key}": value for key, value in declared.items()}, "trainer.precision": "32-true"}


def advice(cfg: DictConfig, command: str = "config") -> list[str]:
    """Overrides that need less memory, the least costly first.

    Args:
        cfg: Of the command.
        command: Name of its config; ``config`` is training.
    """
    if command == "profile":
        size = cfg.profile.batch_size or cfg.data.batch_size or LARGEST_BATCH
        return [f"profile.batch_size={max(size // 2, 1)} (another measurement)"]
    if command != "config":
        if "batch_size" not in cfg or cfg.batch_size == 1:
            return []
        fewer = max(cfg.batch_size // 4, 1) if cfg.batch_size else 16
        return [f"batch_size={fewer} (the same answer, fewer rows at once)"]
    found: list[str] = []
    size, steps = (OmegaConf.select(cfg, key) for key in ("data.batch_size", "trainer.accumulate_grad_batches"))
    size = size or LARGEST_BATCH
    if isinstance(size, int) and size > 1:
        again = 2 * steps if isinstance(steps, int) else 2
        found.append(f"data.batch_size={size // 2} trainer.accumulate_grad_batches={again} (the same steps)")
    if (size := OmegaConf.select(cfg, "data.eval_batch_size")) and size > 1:
        found.append(
            f"data.eval_batch_size={max(size // 4, 1)} (the same scores; where validation or test is too large)"
        )
    for key, plain in memory_options(cfg).items():
        if plain is False and OmegaConf.select(cfg, key) is False:
            found.append(f"{key}=true (same weights, more time)")
    if str(OmegaConf.select(cfg, "trainer.precision")).startswith("32"):
        found.append("trainer.precision=bf16-mixed (half the activations)")
    if (OmegaConf.select(cfg, "data.hops") or 0) > 1:
        found.append("data.hops=1 (smaller neighborhoods)")
    sizes = {key: value for key, value in sizes_of(cfg.get("model"), SIZES).items() if value > 1}
    ordered = sorted(sizes, key=lambda key: SIZES.index(key.rpartition(".")[2]))
    return found + [f"{key}={sizes[key] // 2} (another model)" for key in ordered]


@contextmanager
def memory_explained(cfg: DictConfig, folder: RunFolder | None = None, command: str = "config") -> Iterator[None]:
    """Turn an allocation that fails within the block into one error that names what needs less in this command.

    Args:
        cfg: Of the command.
        folder: Of a run that trains; the error tells what was saved in it.
        command: Name of its config.

    Raises:
        InputError: Out of memory: how much was asked for, which overrides need less, what is saved.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(explanation(cfg, folder, error, command)) from error


def explanation(cfg: DictConfig, folder: RunFolder | None, error: BaseException, command: str) -> str:
    """One line for the person at the keyboard."""
    asked = re.search(r"(?:allocate|allocated?:?) (\d[\d.,]* ?\w*)", str(error))
    where = "the GPU" if isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error) else "this machine"
    saved = ""
    if folder is not None:
        saved = (
            f". What was trained so far is in {folder.last}; with another batch size or precision start from its "
            f"weights by init_from={folder.last}"
            if folder.last.is_file()
            else ". No epoch was finished, so nothing was saved"
        )
    return (
        f"out of memory on {where}"
        + (f" (asked for {asked[1]})" if asked else "")
        + "; what needs less, the cheapest first: "
        + "; ".join([*advice(cfg, command), "a larger GPU, or more memory for the job (sbatch --mem)"])
        + saved
    )


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
        cfg: Of the run; ``evaluation.memory_step_s`` says how long a step of it may take, by fewer samples a batch.
        data: Its data.
        device: Where it was trained.
        samples_per_s: Speed of one process while it was.

    Returns:
        One section; none where nothing saves memory, or nothing is to be measured.
    """
    on, plain, seconds = options_on(cfg), memory_options(cfg), cfg.evaluation.memory_step_s
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
        "a curriculum: the most that tensors held at once above weights and the optimizer's state, and its time (of "
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
    process = DistributedContext(device)
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
