"""A pruner that stops every second trial after a fixed epoch, for searches whose outcome must be known beforehand."""

from __future__ import annotations

from optuna.pruners import BasePruner


class EverySecond(BasePruner):
    """Stops trials of odd numbers.

    Args:
        epoch: The last that they train.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def prune(self, study, trial) -> bool:
        return trial.number % 2 == 1 and trial.last_step >= self.epoch
