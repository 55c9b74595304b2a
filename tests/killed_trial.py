"""A callback that ends its process, then fails a trial, for searches that must survive both."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lightning.pytorch.callbacks import Callback


class KilledThenFailing(Callback):
    """At the end of epoch 1 the first trial kills its process; the trial after it raises; all others pass.

    Args:
        marks: Folder that remembers, between processes, what has happened.
    """

    def __init__(self, marks: str) -> None:
        self.marks = Path(marks)
        self.resumed = False

    def on_train_start(self, trainer, module) -> None:
        self.resumed = trainer.current_epoch > 0

    def on_train_epoch_start(self, trainer, module) -> None:
        if trainer.current_epoch != 1 or self.resumed:
            return
        if not (self.marks / "killed").exists():
            (self.marks / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if not (self.marks / "failed").exists():
            (self.marks / "failed").touch()
            raise RuntimeError("planted failure")
