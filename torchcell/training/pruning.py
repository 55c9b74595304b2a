"""Pruning: a trial of a search reports its score after each epoch, and stops where it is far behind the others."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from torchcell.training.loggers import History

if TYPE_CHECKING:
    from optuna.trial import Trial


SCORE = "val/score"
"""The score that is reported, and that the search maximizes."""


class Pruning(Callback):
    """Reports ``val/score`` of each epoch to the trial; stops training where the pruner says so.

    Only the first process reports; the others follow its decision. A run that goes on reports its earlier epochs again,
    since a killed trial goes on under a new number. A study that can't be reached gives a warning, and the run goes on.

    Args:
        open_trial: Returns the trial; called in the first process only.
        history: Scores of the epochs before this start.

    Attributes:
        pruned: The epoch after which the trial was stopped; None where it was not.
    """

    def __init__(self, open_trial: Callable[[], Trial], history: History) -> None:
        self.open_trial = open_trial
        self.history = history
        self.pruned: int | None = None
        self._trial: Trial | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Report the epochs of the run's earlier part."""
        if trainer.is_global_zero:
            self._attempt(self._begin)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Report, and stop where the pruner says so; a run that ends by itself is scored."""
        behind = trainer.is_global_zero and self._attempt(lambda: self._report(trainer))
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.strategy.broadcast(behind) and not ends:
            self.pruned = trainer.current_epoch
            trainer.should_stop = True

    def _begin(self) -> bool:
        self._trial = self.open_trial()
        past = self.history.frame()
        for epoch, score in zip(past["epoch"], past.get(SCORE, [math.nan] * len(past)), strict=True):
            self._trial.report(float(score), int(epoch))
        return True

    def _report(self, trainer: lightning.Trainer) -> bool:
        if self._trial is None or SCORE not in trainer.callback_metrics:
            return False
        self._trial.report(float(trainer.callback_metrics[SCORE]), trainer.current_epoch)
        return bool(self._trial.should_prune())

    def _attempt(self, call: Callable[[], bool]) -> bool:
        """The result of ``call``; False where the study can't be reached or has closed the trial."""
        from optuna.exceptions import OptunaError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an epoch that was reported before a requeue is reported again
                return call()
        except (OSError, ValueError, LookupError, OptunaError) as error:
            self._trial = None
            rank_zero_warn(f"the study of this search can't be reached ({error}); the trial goes on without pruning")
            return False
