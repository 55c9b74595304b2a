"""Rank, number of processes and device of a process that torchrun, srun or torchcell has started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment
from omegaconf import DictConfig

from torchcell.io.errors import InputError
from torchcell.training.distributed.devices import check_accelerator

DEVICE_TYPES = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "mps": "mps"}
"""Names of accelerators in the config and in torch."""


@dataclass(frozen=True)
class Placement:
    """Place of a process among those that a launcher has started.

    Attributes:
        rank: Number of the process among all; only the first, 0, writes.
        world: Number of processes.
        local_rank: Number of the process on its node.
        local_world: Number of processes on its node.
        address: Host of the first process.
        port: Port of the store through which processes meet, on the first process or torchrun's agent.
        hosted: Whether the launcher has the store, and not the first process.
        attempt: Number of restarts by torchrun, whose store then has keys of earlier attempts.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    address: str
    port: int
    hosted: bool = False
    attempt: str = "0"


def placed(environ: Mapping[str, str]) -> Placement | None:
    """The placement from environment variables; None where this process was started alone.

    RANK and WORLD_SIZE come from torchrun, which may run inside a SLURM job. SLURM_PROCID alone is not enough: the
    script of a batch job has it too, with SLURM_NTASKS above 1. Only a step of srun has its own number of tasks.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        rank, world = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        return Placement(
            rank,
            world,
            local_rank=int(environ.get("LOCAL_RANK", rank)),
            local_world=int(environ.get("LOCAL_WORLD_SIZE", world)),
            address=environ.get("MASTER_ADDR", "127.0.0.1"),
            port=int(environ.get("MASTER_PORT", "29500")),
            hosted=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt=environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
        )
    world = int(environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if world == 1 or "SLURM_PROCID" not in environ:
        return None
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST", "127.0.0.1")
    job, step = int(environ.get("SLURM_JOB_ID", "0")), int(environ.get("SLURM_STEP_ID", "0"))
    return Placement(
        rank=int(environ["SLURM_PROCID"]),
        world=world,
        local_rank=int(environ.get("SLURM_LOCALID", "0")),
        local_world=_tasks(environ, world),
        address=environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes),
        # Different for each step of each job on the node, and below the ports that Linux assigns itself.
        port=int(environ.get("MASTER_PORT") or 10_000 + (8 * job + step % 8) % 22_000),
    )


def _tasks(environ: Mapping[str, str], world: int) -> int:
    """Tasks on this node, from SLURM's list by node such as ``4(x2),3``."""
    counts: list[int] = []
    for entry in environ.get("SLURM_STEP_TASKS_PER_NODE", str(world)).split(","):
        count, _, times = entry.rstrip(")").partition("(x")
        counts += [int(count)] * int(times or 1)
    return counts[min(int(environ.get("SLURM_NODEID", "0")), len(counts) - 1)]


def requested(cfg: DictConfig, place: Placement | None) -> tuple[torch.device, int]:
    """The device of this process, and the number of processes to start; -1 where the launcher has started them.

    Raises:
        InputError: No such device; several processes on MPS; several nodes without a launcher; a launcher that has
            started another number of processes than the config sets.
    """
    accelerator, devices, nodes = cfg.trainer.accelerator, cfg.trainer.devices, int(cfg.trainer.get("num_nodes", 1))
    name = check_accelerator(accelerator)
    if name not in DEVICE_TYPES:
        raise InputError(f"trainer.accelerator={accelerator!r}: choose one of {sorted([*DEVICE_TYPES, 'auto'])}")
    device_type = DEVICE_TYPES[name]
    if device_type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"trainer.accelerator={accelerator}, but no GPU is visible; use trainer=cpu")
    count = _count(devices)
    if count == 0 or count < -1:
        raise InputError(f"trainer.devices={devices}: a number of processes of 1 or more, or -1 for one a GPU")
    if device_type == "mps" and (count > 1 or place is not None):
        raise InputError(f"trainer.devices={devices}, but a machine has one MPS device")
    if place is not None:
        if count > 0 and count * nodes != place.world:
            raise InputError(
                f"{place.world} processes were started, but trainer.devices={devices} on {nodes} node(s) asks for "
                f"{count * nodes}: start as many, or choose trainer=ddp, slurm or ddp_cpu with trainer.devices"
            )
        return _device(device_type, place, devices), -1
    if nodes > 1:
        raise InputError(
            f"trainer.num_nodes={nodes}, but one process was started by hand: put srun (one task a GPU) or torchrun "
            "before the command, see scripts/slurm"
        )
    visible = torch.cuda.device_count() if device_type == "cuda" else 1
    count = visible if count < 0 else count
    if device_type == "cuda" and count > visible:
        raise InputError(f"trainer.devices={devices}, but {visible} GPU(s) are visible")
    return _device(device_type, Placement(0, count, 0, count, "", 0), devices), count


def _device(device_type: str, place: Placement, devices: object) -> torch.device:
    """The GPU of a process: the one that the config lists for it, else the one of its number on the node, or the only
    visible one where SLURM gives each task its own.
    """
    if device_type != "cuda":
        return torch.device(device_type)
    visible = torch.cuda.device_count()
    listed = list(range(visible)) if isinstance(devices, int | str) else list(devices)  # type: ignore[call-overload]
    position = 0 if visible == 1 else place.local_rank
    if position >= len(listed) or listed[position] >= visible:
        raise InputError(
            f"{place.local_world} process(es) on a node where {visible} GPUs are visible, trainer.devices={devices}: "
            f"start one process a GPU, e.g. --ntasks-per-node={visible} or --nproc-per-node {visible}"
        )
    return torch.device(device_type, listed[position])


def _count(devices: object) -> int:
    """Number of processes on a node, -1 for one on each visible GPU; a list of devices is counted."""
    if devices == "auto":
        return 1
    return int(devices) if isinstance(devices, int | str) else len(devices)  # type: ignore[arg-type]


def one_device_a_node(device: torch.device, world: int) -> dict[str, Any]:
    """Arguments of Lightning's trainer on the processes, besides the plugin ``OneDeviceANode``.

    Args:
        device: Device of this process.
        world: Number of processes.
    """
    arguments: dict[str, Any] = {
        "accelerator": "gpu" if device.type == "cuda" else device.type,
        "devices": 1 if device.index is None else [device.index],
        "num_nodes": world,
    }
    return arguments | ({"strategy": "auto"} if world == 1 else {})  # one process needs no strategy


class OneDeviceANode(ClusterEnvironment):
    """For the trainer every process is a node with one device, whatever the launcher and the binding of GPUs.

    Args:
        rank: Number of the process among all.
        world: Number of processes.
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        super().__init__()
        self._rank, self._world = rank, world

    @property
    def creates_processes_externally(self) -> bool:
        """The processes exist before the trainer."""
        return True

    @property
    def main_address(self) -> str:
        """Not used, since the process group exists already."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Not used, since the process group exists already."""
        return int(os.environ.get("MASTER_PORT", "29500"))

    @staticmethod
    def detect() -> bool:
        """Never chosen automatically."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return self._world

    def set_world_size(self, size: int) -> None:
        """Nothing to do: it is known."""

    def global_rank(self) -> int:
        """Number of the process among all."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """Nothing to do: it is known."""

    def local_rank(self) -> int:
        """Each process is the only one of its node."""
        return 0

    def node_rank(self) -> int:
        """Each process is a node."""
        return self._rank
