"""Stops a run whose loss is no longer a number, and names the samples of that batch."""

from __future__ import annotations

from collections import deque
from typing import Any

import lightning
import torch
from torch import Tensor

from torchcell.data.errors import InputError, some


class FiniteLoss(lightning.Callback):
    """Looks at the loss every few steps, so that a GPU need not wait for it at each.

    Args:
        every_n_steps: Steps between two looks; the batches in between are remembered by sample number.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=every_n_steps)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Remember the batch; look when it is time."""
        self._recent.append((outputs["loss"].detach(), batch.sample))
        if len(self._recent) == self.every_n_steps:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look at what is left of the epoch."""
        self._look(trainer)

    def _look(self, trainer: lightning.Trainer) -> None:
        losses = torch.stack([loss for loss, _ in self._recent]) if self._recent else torch.zeros(1)
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            loss, sample = self._recent[int(bad[0])]
            names = trainer.datamodule.sample_id[sample.cpu().numpy()]  # type: ignore[attr-defined]
            raise InputError(
                f"the loss became {float(loss)} in epoch {trainer.current_epoch}, in the batch with the "
                f"{len(names)} samples {some(names)}; look at their values, or lower model.optimizer.lr"
            )
        self._recent.clear()
