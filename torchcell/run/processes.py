"""The processes that ``cfg.trainer`` asks for, for work outside the trainer: this one, or several new ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, distributed, multiprocessing

from torchcell.data.errors import InputError
from torchcell.run.devices import check_accelerator

Task = Callable[[DictConfig, "Process"], Any]
"""What every process runs; only the answer of the first is kept, and it must be plain data."""


@dataclass(frozen=True)
class Process:
    """One of ``world`` processes and its device."""

    device: torch.device
    rank: int = 0
    world: int = 1

    def gather(self, *values: float) -> Tensor:
        """The values of all processes, float64 [world, len(values)] on the CPU; each waits here for the others."""
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.world == 1:
            return mine[None].cpu()
        everyone = [torch.empty_like(mine) for _ in range(self.world)]
        distributed.all_gather(everyone, mine)
        return torch.stack(everyone).cpu()


def run_in_processes(task: Task, cfg: DictConfig) -> Any:
    """Run ``task`` on the device of ``cfg.trainer.accelerator`` in ``cfg.trainer.devices`` processes of this machine.

    Returns:
        What the task returned in the first process.

    Raises:
        InputError: No such device, more than one process on MPS, or raised by the task in any process.
    """
    kind, world = _device_kind(check_accelerator(cfg.trainer.accelerator)), _count(cfg.trainer.devices)
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"trainer.accelerator={cfg.trainer.accelerator}, but no GPU is visible; use trainer=cpu")
    visible = torch.cuda.device_count() if kind == "cuda" else 1
    world = visible if world < 0 else world
    if kind == "cuda" and world > visible:
        raise InputError(f"trainer.devices={cfg.trainer.devices}, but {visible} GPU(s) are visible")
    if kind == "mps" and world > 1:
        raise InputError(f"trainer.devices={cfg.trainer.devices}, but a machine has one MPS device")
    if world == 1:
        return task(cfg, Process(torch.device(kind)))
    said = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        try:
            multiprocessing.spawn(_worker, (task, cfg, kind, world, Path(folder) / "store", said), world)
        except multiprocessing.ProcessRaisedException:
            if said.empty():
                raise
            raise InputError(said.get()) from None
    return said.get()


def _worker(rank: int, task: Task, cfg: DictConfig, kind: str, world: int, store: Path, said: Any) -> None:
    """Join the others, run the task, and pass on the first one's answer or the words of bad input."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if kind == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        answer = task(cfg, Process(device, rank, world))
        if rank == 0:
            said.put(answer)
        distributed.barrier()  # none leaves while another still waits for it
    except InputError as error:
        said.put(str(error))
        raise
    finally:
        distributed.destroy_process_group()


def _device_kind(accelerator: str) -> str:
    known = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "mps": "mps"}
    if accelerator not in known:
        raise InputError(f"trainer.accelerator={accelerator!r}: choose one of {sorted([*known, 'auto'])}")
    return known[accelerator]


def _count(devices: Any) -> int:
    """Processes, -1 for one a visible GPU; a list of devices is counted."""
    if devices == "auto":
        return 1
    return int(devices) if isinstance(devices, int | str) else len(devices)
