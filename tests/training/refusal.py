"""A task for several processes that the second one cannot do; imports little, so that processes start quickly."""

from __future__ import annotations

from omegaconf import DictConfig

from torchcell.io.errors import InputError
from torchcell.training.distributed.processes import DistributedContext


def refuse(cfg: DictConfig, process: DistributedContext) -> None:
    if process.rank == 1:
        raise InputError("the second process has no data; bring some")
    process.gather(0.0)
