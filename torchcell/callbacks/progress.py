"""Progress with the terms of the loss: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar

from torchcell.callbacks.pace import Pace, duration

SCORE = "val/score"
RECENT = 5
"""Epochs from whose length the time left is told."""


class Progress(TQDMProgressBar):
    """Epoch i of N and the time left, speed, memory, validation score with a mark at the best, mean of each loss term.

    Epochs are counted from 1 here, from 0 in ``history.csv``. The time left is the most it can be, since early stopping
    may end the run before. In a log file each epoch is a line; a long one, a long validation or test pass says besides
    how far it is, and the first epoch how long it will take, see ``Pace``.

    Args:
        refresh_rate: Steps between two updates of the bar; only then are the terms read from the device.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        self.terminal = sys.stderr.isatty()
        super().__init__(refresh_rate=refresh_rate if self.terminal else 0)
        self._epoch_pace = self._pass_pace = Pace("", None)
        self._best, self._best_epoch = -math.inf, 0
        self._ends: deque[float] = deque(maxlen=RECENT + 1)

    def get_metrics(self, trainer: lightning.Trainer, model: Any) -> dict[str, Any]:
        """Short numbers by short names."""
        logged = {name: value for name, value in super().get_metrics(trainer, model).items() if name != "v_num"}
        values = {name: f"{float(value):.3g}" for name, value in (logged | model.running_terms()).items()}
        if self._best_epoch:
            values["best"] = f"{self._best:.3g} in epoch {self._best_epoch}"
        return values

    # Training ----------------------------------------------------------------------------------------

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Know the best score of a run that goes on."""
        super().on_train_start(trainer, pl_module)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor == SCORE and callback.best_model_score:
                self._best = float(callback.best_model_score)
        self._ends.append(time.monotonic())

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Name the epoch, and how long the rest takes."""
        super().on_train_epoch_start(trainer, pl_module)
        name = self._epoch(trainer)
        self._epoch_pace = Pace(name, float(trainer.num_training_batches))
        if self.terminal:
            self.train_progress_bar.set_description(", ".join([name, *self._left(trainer, trainer.current_epoch)]))

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar, or say how far a long epoch is."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        line = None if self.terminal else self._epoch_pace.line(batch_idx + 1)
        if line is not None:
            terms = [f"{name} {value:.3g}" for name, value in pl_module.running_terms().items()]
            self._say(trainer, "  ".join([line, *terms]))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Mark the best epoch; outside a terminal, where a bar would fill the log, print one line."""
        self._ends.append(time.monotonic())
        score = float(trainer.callback_metrics.get(SCORE, math.nan))
        is_best = score > self._best
        if is_best:
            self._best, self._best_epoch = score, trainer.current_epoch + 1
        super().on_train_epoch_end(trainer, pl_module)
        if not self.terminal:
            values = self.get_metrics(trainer, pl_module)
            values.pop("best", None)
            told = [f"{name} {value}{' (best)' * (is_best and name == SCORE)}" for name, value in values.items()]
            left = self._left(trainer, trainer.current_epoch + 1)
            self._say(
                trainer, "  ".join([self._epoch(trainer), duration(self._ends[-1] - self._ends[-2]), *told, *left])
            )

    # Other passes ------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A validation pass may be long, too."""
        super().on_validation_start(trainer, pl_module)
        self._pass_pace = Pace(f"{self._epoch(trainer)}, validation", _total(trainer.num_val_batches))

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the bar, or say how far it is."""
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._say_pass(trainer, batch_idx)

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """So may the pass that is scored."""
        super().on_test_start(trainer, pl_module)
        self._pass_pace = Pace("predictions of the model", _total(trainer.num_test_batches))

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the bar, or say how far it is."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._say_pass(trainer, batch_idx)

    # -------------------------------------------------------------------------------------------------

    def _epoch(self, trainer: lightning.Trainer) -> str:
        last = trainer.max_epochs or -1
        number = f"{trainer.current_epoch + 1:>{len(str(last))}}" if last > 0 else str(trainer.current_epoch + 1)
        return f"epoch {number} of {last}" if last > 0 else f"epoch {number}"

    def _left(self, trainer: lightning.Trainer, done: int) -> list[str]:
        """The longest that the epochs after the first ``done`` take, once one was measured and if any are left."""
        left = (trainer.max_epochs or 0) - done
        if left <= 0 or len(self._ends) < 2:
            return []
        return [f"at most {duration(left * (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1))} left"]

    def _say_pass(self, trainer: lightning.Trainer, batch_idx: int) -> None:
        """Say how far a pass without training is, if a line is due."""
        line = None if self.terminal else self._pass_pace.line(batch_idx + 1)
        if line is not None:
            self._say(trainer, line)

    @staticmethod
    def _say(trainer: lightning.Trainer, line: str) -> None:
        if trainer.is_global_zero:
            print(line, file=sys.stderr, flush=True)


def _total(batches: int | float | Sequence[int | float]) -> float:
    return float(sum(batches) if isinstance(batches, Sequence) else batches)
