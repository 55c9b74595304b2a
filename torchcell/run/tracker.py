"""wandb that never takes a run with it: what it fails to do is told once, and the run goes on."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

FINISH_S = 60.0
"""Longest that a finished run waits for wandb to upload what is left; it stays in the run's folder."""
ANSWER_S = 5.0
"""Longest that the start of a run waits for wandb's server."""


SCORE = "val/score"
"""What the best epoch is chosen by; wandb's summary holds its largest value, not the last."""


class Tracker(WandbLogger):
    """A ``WandbLogger`` that is given up at its first error; history, metrics and report are in the run's folder.

    Args:
        best: Largest ``val/score`` of the run's earlier part, where it goes on.
        known: As for ``WandbLogger``.
    """

    given_up: bool = False

    def __init__(self, best: float = -math.inf, **known: Any) -> None:
        super().__init__(**known)
        self._wandb_init.pop("anonymous", None)  # wandb warns of it, and Lightning always passes it
        self.best = best
        self.attempt(lambda: self.experiment.define_metric(SCORE, step_metric="trainer/global_step", summary="max"))

    def attempt(self, call: Callable[[], Any]) -> None:
        """Do ``call``, or nothing once wandb was given up."""
        if self.given_up:
            return
        try:
            call()
        except Exception as error:  # whatever a tracker raises, the run is worth more
            self.given_up = True
            why = " ".join(str(error).split())[:200] or type(error).__name__
            rank_zero_warn(
                f"wandb failed ({why}); the run goes on without it. All is in the run's folder; what wandb had until "
                f"now: wandb sync {self.save_dir}/wandb/*{self.version}"
            )

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log, or give up."""
        self.attempt(lambda: self._log(metrics, step))

    def _log(self, metrics: Any, step: int | None) -> None:
        super().log_metrics(metrics, step)
        if SCORE in metrics:
            # wandb would write {max: ...}, forgets it when a run goes on, and a sweep reads a number.
            self.best = max(self.best, float(metrics[SCORE]))
            self.experiment.summary[SCORE] = self.best

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log, or give up."""
        self.attempt(lambda: super(Tracker, self).log_hyperparams(params))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close, or give up."""
        self.attempt(lambda: super(Tracker, self).finalize(status))


def reachable() -> bool:
    """Whether wandb's server answers at all; proxies of the environment are used."""
    import wandb

    try:
        requests.get(str(wandb.Settings().base_url), timeout=ANSWER_S)
    except requests.RequestException:
        return False
    return True


def warn_unreachable(folder: Path) -> None:
    """Say that the run is logged offline, and how to send it later."""
    rank_zero_warn(
        f"wandb's server does not answer from here; the run is logged offline: wandb sync {folder}/wandb/offline-run-*"
    )
