"""A task for several processes in which one is killed like one that is out of memory: ``python lost_process.py RANK``."""

from __future__ import annotations

import os
import signal
import sys
import time

from omegaconf import DictConfig, OmegaConf

from torchcell.io.errors import InputError
from torchcell.training.distributed.processes import DistributedContext, run_in_processes

CONFIG = {"trainer": {"accelerator": "cpu", "devices": 2, "lost_after_s": 4, "wait_s": 120, "victim": -1, "busy": 0}}


def work(cfg: DictConfig, process: DistributedContext) -> None:
    """Exchange until one is gone, or work alone and never ask for the others."""
    process.gather(0.0)
    if process.rank == cfg.trainer.victim:
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(0.05)
        if not cfg.trainer.busy:
            process.gather(1.0)


if __name__ == "__main__":
    cfg = OmegaConf.create(CONFIG)
    cfg.trainer.victim, cfg.trainer.busy = int(sys.argv[1]), int(sys.argv[2])
    try:
        run_in_processes(work, cfg)
    except InputError as error:
        sys.exit(f"error: {error}")
