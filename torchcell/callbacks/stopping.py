"""Early stopping that stays stopped when a run goes on that had only to be scored."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


class Stopping(EarlyStopping):
    """``EarlyStopping`` whose decision is part of the checkpoint: a run killed while it is scored trains no more."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop again where the checkpoint is of the epoch in which training was stopped."""
        stopped = self.stopping_reason != EarlyStoppingReason.NOT_STOPPED
        if stopped and trainer.current_epoch == self.stopped_epoch + 1:
            trainer.should_stop = True
