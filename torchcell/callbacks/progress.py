"""The progress bar, with the terms of the loss on it."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar


class Progress(TQDMProgressBar):
    """Epoch, speed, memory, validation score and the running mean of each loss term.

    Args:
        refresh_rate: Steps between two updates; only then are the terms read from the device.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def get_metrics(self, trainer: lightning.Trainer, model: Any) -> dict[str, Any]:
        """Short numbers by short names."""
        logged = {name: value for name, value in super().get_metrics(trainer, model).items() if name != "v_num"}
        return {name: f"{float(value):.3g}" for name, value in (logged | model.running_terms()).items()}
