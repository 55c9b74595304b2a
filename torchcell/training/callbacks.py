"""Callbacks of a run: non-finite values, shares of the loss, stopping, progress, throughput."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import psutil
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from torchcell.io.configurable import CALLBACKS, configurable
from torchcell.io.errors import InputError, readable, some
from torchcell.io.progress import Pace, duration


@dataclass(frozen=True, eq=False)
class _RecentBatch:
    """One batch: its loss and terms on the device, its sample numbers, and the number of steps before it."""

    loss: Tensor
    terms: dict[str, Tensor]
    sample: Tensor
    step: int


@configurable(place=CALLBACKS)
class FiniteLoss(lightning.Callback):
    """Checks the loss every few steps, so that a GPU need not wait at every step, and the weights every epoch.

    Args:
        every_n_steps: Steps between two checks; the batches in between are remembered by sample number.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._recent: deque[_RecentBatch] = deque(maxlen=every_n_steps)
        self._step = 0

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the number of steps."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Remember the batch; check when it is time."""
        self._recent.append(
            _RecentBatch(outputs["loss"].detach(), dict(pl_module.step_terms), batch.sample, self._step)
        )
        if len(self._recent) == self.every_n_steps:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Check the last losses of the epoch, and the weights before they are saved.

        Raises:
            InputError: A loss or a weight that is not finite; the last step may change weights without a loss after it.
        """
        self._check(trainer)
        weights = dict(pl_module.named_parameters())
        finite = torch.stack([torch.isfinite(weight).all() for weight in weights.values()])
        if not finite.all():
            bad = [name for name, fine in zip(weights, finite.tolist(), strict=True) if not fine]
            raise InputError(
                f"weights became NaN or infinite in epoch {trainer.current_epoch}, by step {trainer.global_step}, "
                f"though every loss was a number: {some(bad)}; lower model.optimizer.lr or trainer.gradient_clip_val"
                f"{_last_good(trainer)}"
            )

    def _check(self, trainer: lightning.Trainer) -> None:
        losses = torch.stack([recent.loss for recent in self._recent]) if self._recent else torch.zeros(1)
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            first = self._recent[int(bad[0])]
            names = trainer.datamodule.sample_id[first.sample.cpu().numpy()]  # type: ignore[attr-defined]
            terms = [f"{name} {float(value):.4g}" for name, value in first.terms.items() if not torch.isfinite(value)]
            raise InputError(
                f"the loss became {float(first.loss)} in epoch {trainer.current_epoch} at step {first.step + 1} "
                f"(terms: {', '.join(terms) or 'all finite, their sum is not'}), in the batch with the {len(names)} "
                f"samples {some(names)}; look at their values, or lower model.optimizer.lr{_last_good(trainer)}"
            )
        self._recent.clear()


def _last_good(trainer: lightning.Trainer) -> str:
    """A sentence on the checkpoint of the last good epoch."""
    folders = [callback.dirpath for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    for folder in folders:
        last = Path(str(folder)) / "last.ckpt"
        if last.is_file():
            return f". The last good weights are {last}: start from them with init_from={last}"
    return ". No epoch was finished before, so no weights are saved"


@configurable(place=CALLBACKS)
class LossShare(lightning.Callback):
    """Warns once where one of several terms makes up nearly all of the objective for an epoch.

    Args:
        limit: Share of the total above which it warns.
    """

    def __init__(self, limit: float = 0.9) -> None:
        self.limit = limit
        self._warned: set[str] = set()

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Check the shares of the last finished epoch."""
        metrics = trainer.callback_metrics
        shares = {name: float(value) for name, value in metrics.items() if name.startswith("train/share/")}
        for name, share in shares.items():
            if len(shares) > 1 and share > self.limit and name not in self._warned:
                self._warned.add(name)
                term = name.removeprefix("train/share/")
                rank_zero_warn(
                    f"the term {term!r} was {share:.1%} of the objective for an epoch; "
                    f"the others hardly count: look at model.loss_weights.{term}"
                )


SCORE = "val/score"
RECENT = 5
"""Last epochs whose length gives the remaining time."""


@configurable(place=CALLBACKS)
class Progress(TQDMProgressBar):
    """Epoch i of N and the time left, speed, memory, validation score with a mark at the best, mean of each loss term.

    Epochs are counted from 1 here, and from 0 in ``history.csv``. The time left is an upper bound, since early stopping
    may end the run before. In a log file each epoch is a line; a long epoch, validation or test pass prints its
    progress too, and the first epoch how long it will take, see ``Pace``.

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
        """Get the best score of a run that goes on."""
        super().on_train_start(trainer, pl_module)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor == SCORE and callback.best_model_score:
                self._best = float(callback.best_model_score)
        self._ends.append(time.monotonic())

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the number of the epoch and the remaining time."""
        super().on_train_epoch_start(trainer, pl_module)
        name = self._epoch(trainer)
        self._epoch_pace = Pace(name, float(trainer.num_training_batches))
        if self.terminal:
            self.train_progress_bar.set_description(", ".join([name, *self._left(trainer, trainer.current_epoch)]))

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar, or print the progress of a long epoch."""
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
            texts = [f"{name} {value}{' (best)' * (is_best and name == SCORE)}" for name, value in values.items()]
            left = self._left(trainer, trainer.current_epoch + 1)
            self._say(
                trainer, "  ".join([self._epoch(trainer), duration(self._ends[-1] - self._ends[-2]), *texts, *left])
            )

    # Other passes ------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the progress of a validation pass."""
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
        """Update the bar, or print the progress."""
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._say_pass(trainer, batch_idx)

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the progress of the test pass."""
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
        """Update the bar, or print the progress."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._say_pass(trainer, batch_idx)

    # -------------------------------------------------------------------------------------------------

    def _epoch(self, trainer: lightning.Trainer) -> str:
        last = trainer.max_epochs or -1
        number = f"{trainer.current_epoch + 1:>{len(str(last))}}" if last > 0 else str(trainer.current_epoch + 1)
        return f"epoch {number} of {last}" if last > 0 else f"epoch {number}"

    def _left(self, trainer: lightning.Trainer, done: int) -> list[str]:
        """Upper bound of the remaining time after ``done`` epochs; empty where none was measured or none is left."""
        left = (trainer.max_epochs or 0) - done
        if left <= 0 or len(self._ends) < 2:
            return []
        return [f"at most {duration(left * (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1))} left"]

    def _say_pass(self, trainer: lightning.Trainer, batch_idx: int) -> None:
        """Print the progress of a pass without training, if a line is due."""
        line = None if self.terminal else self._pass_pace.line(batch_idx + 1)
        if line is not None:
            self._say(trainer, line)

    @staticmethod
    def _say(trainer: lightning.Trainer, line: str) -> None:
        if trainer.is_global_zero:
            print(readable(line), file=sys.stderr, flush=True)


def _total(batches: int | float | Sequence[int | float]) -> float:
    return float(sum(batches) if isinstance(batches, Sequence) else batches)


@configurable(place=CALLBACKS)
class Stopping(EarlyStopping):
    """``EarlyStopping`` with its decision in the checkpoint: a run killed while it is scored does not train again."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts, but take patience from this config: a higher one lets the run go on."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop again after the epoch in which training was stopped, unless patience was raised."""
        stopped = self.stopping_reason != EarlyStoppingReason.NOT_STOPPED and self.wait_count >= self.patience
        if stopped and trainer.current_epoch == self.stopped_epoch + 1:
            trainer.should_stop = True


def on_gpu() -> bool:
    """Whether this process has put anything on a GPU."""
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def memory_mb() -> float:
    """Memory in MB: the peak on the GPU since the last reset, else the present memory of the process."""
    return torch.cuda.max_memory_allocated() / 1e6 if on_gpu() else psutil.Process().memory_info().rss / 1e6


@configurable(place=CALLBACKS)
class Throughput(lightning.Callback):
    """Logs an epoch's ``samples_per_s`` (all processes, training steps only), ``memory_mb`` and ``epoch_s``."""

    def __init__(self) -> None:
        self._start, self._samples = 0.0, 0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock of the epoch, and reset the peak."""
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
