"""Samples per second and peak memory of each epoch, in the history and on the progress bar."""

from __future__ import annotations

import time
from typing import Any

import lightning
import psutil
import torch


def on_gpu() -> bool:
    """Whether this process has put anything on a GPU."""
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def memory_mb() -> float:
    """Memory in MB: the peak on the GPU since the last reset, else what the process holds now."""
    return torch.cuda.max_memory_allocated() / 1e6 if on_gpu() else psutil.Process().memory_info().rss / 1e6


class Throughput(lightning.Callback):
    """Logs an epoch's ``samples_per_s`` (all processes, training steps only), ``memory_mb`` and ``epoch_s``."""

    def __init__(self) -> None:
        self._start, self._samples = 0.0, 0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the epoch's clock and peak."""
        if on_gpu():
            torch.cuda.reset_peak_memory_stats()
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
            values = {"samples_per_s": self._samples / seconds, "memory_mb": memory_mb()}
            pl_module.log_dict(values, on_step=False, on_epoch=True, prog_bar=True, batch_size=1)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Seconds of the whole epoch, validation too."""
        pl_module.log("epoch_s", time.perf_counter() - self._start)
