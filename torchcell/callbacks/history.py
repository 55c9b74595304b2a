"""``history.csv``: one row an epoch, written whole after each; ``steps.csv`` beside it where steps are logged."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from torchcell.callbacks.step_log import PREFIX
from torchcell.data.cache import atomic_write


class History(Logger):
    """Collects what is logged by epoch. When a run goes on, the rows of the epochs it repeats are replaced.

    Args:
        path: The CSV file; rows that stand there are kept.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.steps_path = self.path.with_name("steps.csv")
        self._rows = _known(self.path, "epoch")
        self._steps = _known(self.steps_path, "step")

    @property
    def name(self) -> str:
        """Of the logger."""
        return "history"

    @property
    def version(self) -> str:
        """There is one file a run."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> History:
        """The logger itself."""
        return self

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run's ``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the epoch's row; or the row of a step."""
        values = dict(metrics)
        if step is not None and all(name.startswith(PREFIX) for name in values):
            self._steps[step] = {"step": step} | {name.removeprefix(PREFIX): value for name, value in values.items()}
        if "epoch" not in values:
            return
        epoch = int(values.pop("epoch"))
        self._rows.setdefault(epoch, {"epoch": epoch}).update(values)

    @rank_zero_only
    def save(self) -> None:
        """Write the tables."""
        if self._rows:
            with atomic_write(self.path) as temporary:
                self.frame().to_csv(temporary, index=False)
        if self._steps:
            with atomic_write(self.steps_path) as temporary:
                rows = [self._steps[step] for step in sorted(self._steps)]
                pd.DataFrame(rows).astype({"epoch": int}).to_csv(temporary, index=False)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the table a last time."""
        self.save()

    def forget_from(self, epoch: int) -> None:
        """Drop the rows of ``epoch`` and later, which a resumed run computes again."""
        self._rows = {number: row for number, row in self._rows.items() if number < epoch}
        self._steps = {step: row for step, row in self._steps.items() if row["epoch"] < epoch}

    def best(self, name: str) -> float:
        """The largest value of one column; minus infinity where there is none."""
        return max((row[name] for row in self._rows.values() if row.get(name, math.nan) > -math.inf), default=-math.inf)

    def frame(self) -> pd.DataFrame:
        """One row an epoch, in order."""
        frame = pd.DataFrame([self._rows[epoch] for epoch in sorted(self._rows)])
        return frame.reindex(columns=["epoch", *sorted(set(frame.columns) - {"epoch"})])


def _known(path: Path, key: str) -> dict[int, dict[str, float]]:
    """The rows of a table that an earlier part of the run has written, by their number."""
    rows = pd.read_csv(path, float_precision="round_trip").to_dict("records") if path.is_file() else []
    return {int(row[key]): {str(name): value for name, value in row.items()} for row in rows}


class CheckpointAfterHistory(ModelCheckpoint):
    """Writes the epoch's row before the epoch's checkpoint.

    The trainer logs after it has saved. Killed in between, a run would go on behind an epoch that has no row; killed
    between row and checkpoint, it makes both again.

    Args:
        history: Where the row goes.
        known: As for ``ModelCheckpoint``.
    """

    def __init__(self, history: History, **known: Any) -> None:
        super().__init__(**known)
        self.history = history

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Row, then checkpoint."""
        row = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.history.log_metrics({"epoch": trainer.current_epoch, **row})
        self.history.save()
        super().on_train_epoch_end(trainer, pl_module)
