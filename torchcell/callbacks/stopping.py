"""Early stopping that stays stopped when a run goes on that had only to be scored."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


class Stopping(EarlyStopping):
    """``EarlyStopping`` whose decision is part of the checkpoint: a run killed while it is scored trains no more."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what was counted, and with the patience of this config: raised, it lets a run go on."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop again where the checkpoint is of the epoch in which training was stopped, unless patience was raised."""
        stopped = self.stopping_reason != EarlyStoppingReason.NOT_STOPPED and self.wait_count >= self.patience
        if stopped and trainer.current_epoch == self.stopped_epoch + 1:
            trainer.should_stop = True
