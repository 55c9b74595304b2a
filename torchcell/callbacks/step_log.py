"""What single optimiser steps had: loss, its terms, gradient norm and learning rate; an option, see ``conf/logger``."""

from __future__ import annotations

from typing import Any

import lightning

PREFIX = "step/"
"""Of the names; the loggers tell these values from those of an epoch by it."""


class StepLog(lightning.Callback):
    """Logs every ``every_n_steps``-th optimiser step to all loggers, the loss of the step's last batch.

    Args:
        every_n_steps: Steps between two rows; each waits for the device.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self._last = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Steps that were made before are logged already."""
        self._last = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, if a step was made and it is its turn."""
        step = trainer.global_step
        if step == self._last or step % self.every_n_steps:
            return
        self._last = step
        terms = {f"loss/{name}": value for name, value in pl_module.step_terms.items()}
        values = {"loss": sum(terms.values()), **terms, **pl_module.step_facts}
        row = {f"{PREFIX}{name}": float(value) for name, value in {"epoch": trainer.current_epoch, **values}.items()}
        for logger in trainer.loggers:
            logger.log_metrics(row, step)
