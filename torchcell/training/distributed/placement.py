"""Which of how many processes this one is, as torchrun, srun or torchcell itself has started it."""

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

KINDS = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "mps": "mps"}
"""Names of accelerators in the config and in torch."""


@dataclass(frozen=True)
class Placement:
    """Where a process stands among those that some launcher has started.

    Attributes:
        rank: Number of the process among all; only the first, 0, writes.
        world: Number of processes.
        local_rank: Number among those of its node.
        local_world: Processes on its node.
        address: Host of the first process.
        port: Where the first process, or torchrun's agent, keeps the store that all meet at.
        hosted: The store is the launcher's, not the first process's.
        attempt: Grows each time that torchrun starts the processes again; its store then holds older keys.
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
    """The placement that the environment tells of; none where this process was started alone.

    RANK and WORLD_SIZE come from torchrun, which may itself run inside a SLURM job. SLURM_PROCID alone says nothing:
    the script of a batch job has it too, beside an SLURM_NTASKS of many. Only a step of srun has a count of its own.
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
        # Of its own for each step of each job on the node, and below the ports that Linux hands out.
        port=int(environ.get("MASTER_PORT") or 10_000 + (8 * job + step % 8) % 22_000),
    )


def _tasks(environ: Mapping[str, str], world: int) -> int:
    """Tasks on this node, from SLURM's list by node such as ``4(x2),3``."""
    counts: list[int] = []
    for entry in environ.get("SLURM_STEP_TASKS_PER_NODE", str(world)).split(","):
        count, _, times = entry.rstrip(")").partition("(x")
        counts += [int(count)] * int(times or 1)
    return counts[min(int(environ.get("SLURM_NODEID", "0")), len(counts) - 1)]


def asked_for(cfg: DictConfig, place: Placement | None) -> tuple[torch.device, int]:
    """This process's device, and how many processes the config asks for; -1 where it leaves that to the launcher.

    Raises:
        InputError: No such device; more processes on MPS than its one; several nodes and no launcher; a launcher that
            has started another number of processes than the config asks for.
    """
    accelerator, devices, nodes = cfg.trainer.accelerator, cfg.trainer.devices, int(cfg.trainer.get("num_nodes", 1))
    name = check_accelerator(accelerator)
    if name not in KINDS:
        raise InputError(f"trainer.accelerator={accelerator!r}: choose one of {sorted([*KINDS, 'auto'])}")
    kind = KINDS[name]
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"trainer.accelerator={accelerator}, but no GPU is visible; use trainer=cpu")
    count = _count(devices)
    if count == 0 or count < -1:
        raise InputError(f"trainer.devices={devices}: a number of processes of 1 or more, or -1 for one a GPU")
    if kind == "mps" and (count > 1 or place is not None):
        raise InputError(f"trainer.devices={devices}, but a machine has one MPS device")
    if place is not None:
        if count > 0 and count * nodes != place.world:
            raise InputError(
                f"{place.world} processes were started, but trainer.devices={devices} on {nodes} node(s) asks for "
                f"{count * nodes}: start as many, or choose trainer=ddp, slurm or ddp_cpu with trainer.devices"
            )
        return _device(kind, place, devices), -1
    if nodes > 1:
        raise InputError(
            f"trainer.num_nodes={nodes}, but one process was started by hand: put srun (one task a GPU) or torchrun "
            "before the command, see scripts/slurm"
        )
    visible = torch.cuda.device_count() if kind == "cuda" else 1
    count = visible if count < 0 else count
    if kind == "cuda" and count > visible:
        raise InputError(f"trainer.devices={devices}, but {visible} GPU(s) are visible")
    return _device(kind, Placement(0, count, 0, count, "", 0), devices), count


def _device(kind: str, place: Placement, devices: object) -> torch.device:
    """The GPU of a process: the one that the config lists for it, else its number on the node, or the only one it sees
    where SLURM shows each task its own.
    """
    if kind != "cuda":
        return torch.device(kind)
    visible = torch.cuda.device_count()
    listed = list(range(visible)) if isinstance(devices, int | str) else list(devices)  # type: ignore[call-overload]
    at = 0 if visible == 1 else place.local_rank
    if at >= len(listed) or listed[at] >= visible:
        raise InputError(
            f"{place.local_world} process(es) on a node where {visible} GPUs are visible, trainer.devices={devices}: "
            f"start one process a GPU, e.g. --ntasks-per-node={visible} or --nproc-per-node {visible}"
        )
    return torch.device(kind, listed[at])


def _count(devices: object) -> int:
    """Processes a node, -1 for one a visible GPU; a list of devices is counted."""
    if devices == "auto":
        return 1
    return int(devices) if isinstance(devices, int | str) else len(devices)  # type: ignore[arg-type]


def one_device_a_node(device: torch.device, world: int) -> dict[str, Any]:
    """What Lightning's trainer is told of the processes, beside the plugin ``OneDeviceANode``.

    Args:
        device: Of this process.
        world: Number of processes.
    """
    told: dict[str, Any] = {
        "accelerator": "gpu" if device.type == "cuda" else device.type,
        "devices": 1 if device.index is None else [device.index],
        "num_nodes": world,
    }
    return told | ({"strategy": "auto"} if world == 1 else {})  # one process has nobody to agree with


class OneDeviceANode(ClusterEnvironment):
    """To the trainer every process is a node with one device: so each launcher and each way to bind GPUs is alike.

    Args:
        rank: Number of the process among all.
        world: Number of processes.
    """

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        super().__init__()
        self._rank, self._world = rank, world

    @property
    def creates_processes_externally(self) -> bool:
        """They are there when the trainer is made."""
        return True

    @property
    def main_address(self) -> str:
        """Not asked for: the group exists."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Not asked for: the group exists."""
        return int(os.environ.get("MASTER_PORT", "29500"))

    @staticmethod
    def detect() -> bool:
        """Never by itself."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return self._world

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Number among all processes."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """The only one of its node."""
        return 0

    def node_rank(self) -> int:
        """Each process is a node."""
        return self._rank
