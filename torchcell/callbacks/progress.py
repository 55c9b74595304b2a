"""Progress with the terms of the loss: a bar on a terminal, a line an epoch in a log file."""

from __future__ import annotations

import sys
from typing import Any

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar


class Progress(TQDMProgressBar):
    """Epoch, speed, memory, validation score and the running mean of each loss term.

    Args:
        refresh_rate: Steps between two updates; only then are the terms read from the device.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        self.terminal = sys.stderr.isatty()
        super().__init__(refresh_rate=refresh_rate if self.terminal else 0)

    def get_metrics(self, trainer: lightning.Trainer, model: Any) -> dict[str, Any]:
        """Short numbers by short names."""
        logged = {name: value for name, value in super().get_metrics(trainer, model).items() if name != "v_num"}
        return {name: f"{float(value):.3g}" for name, value in (logged | model.running_terms()).items()}

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Outside a terminal, where a bar would fill the log, print one line."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self.terminal and trainer.is_global_zero:
            values = "  ".join(f"{name} {value}" for name, value in self.get_metrics(trainer, pl_module).items())
            print(f"epoch {trainer.current_epoch:3d}  {values}", file=sys.stderr, flush=True)
