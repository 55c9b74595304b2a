"""What to do when the memory is not enough, in the words of the command at hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from torchcell.data.errors import InputError
from torchcell.datamodules.batch import LARGEST_BATCH
from torchcell.run.folder import RunFolder

SAYINGS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "Unable to allocate")
"""How CUDA, torch's CPU allocator, C++ and numpy say it."""


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
        found.append("data.hops=1 (smaller neighbourhoods)")
    for key in ("model.dim", "model.layers", "model.hidden"):
        value = OmegaConf.select(cfg, key)
        if isinstance(value, int) and value > 1:
            found.append(f"{key}={value // 2} (another model)")
    return found


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
