"""Samples per second and peak memory of each epoch, in the history and on the progress bar."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import lightning
import torch


def peak_memory_mb() -> float:
    """Peak memory in MB: of the GPU where one is used, else the resident set of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts ru_maxrss in kB, macOS in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class Throughput(lightning.Callback):
    """Logs ``samples_per_s`` (all processes, training steps only) and ``memory_mb``."""

    def __init__(self) -> None:
        self._start, self._samples = 0.0, 0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the epoch's clock."""
        self._start, self._samples = time.perf_counter(), 0

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the samples of the step."""
        self._samples += len(batch) * trainer.world_size
        if trainer.is_last_batch:  # before validation, which is not training
            seconds = time.perf_counter() - self._start
            values = {"samples_per_s": self._samples / seconds, "memory_mb": peak_memory_mb()}
            pl_module.log_dict(values, on_step=False, on_epoch=True, prog_bar=True, batch_size=1)
