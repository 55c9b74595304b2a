"""A run that is told to end by a signal saves, says how to go on, and under SLURM goes back into the queue."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from torchcell.run import slurm

TOLD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""SLURM ends a job by the first; the second is what our job scripts ask for before the limit, submitit the third."""


class Stopped(SystemExit):
    """The run ended because it was told to; its exit status is 128 and the signal's number, as a shell's."""


class Signals:
    """Keeps signals from ending the process in the midst of a step.

    While the model trains a signal is only noted in ``told``, and ``torchcell.callbacks.requeue`` saves at the next
    step's end; at any other time nothing can be saved, and the process ends at once.

    Args:
        last: The checkpoint that the run goes on from.
    """

    def __init__(self, last: Path) -> None:
        self.last = last
        self.told = 0
        self.training = False
        self.stepped = False
        self.where = "before training"
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in TOLD}
        self.install()
        return self

    def install(self) -> None:
        """Take the signals over, also from a trainer that has taken them in the meantime."""
        if threading.current_thread() is threading.main_thread():
            for number in TOLD:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.told:  # being told twice must not disturb the end
            self.told = number
            if not self.training:
                raise self.stopped()

    def stopped(self) -> Stopped:
        """What to raise now."""
        return Stopped(128 + self.told)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        requeued = isinstance(error, Stopped) and bool(self._leave())
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                # SLURM ends a requeued job by SIGTERM; the loggers may still finish their files.
                signal.signal(number, signal.SIG_IGN if requeued else handler)

    @rank_zero_only
    def _leave(self) -> bool:
        """Say what happens next; whether the job was requeued."""
        saved = self.last.is_file()
        said = f"{signal.Signals(self.told).name} ({self.where}): "
        said += f"saved {self.last}" if saved else "nothing to save yet"
        by_hand = "go on with ckpt_path=last" if saved else "start it again"
        job = slurm.job_id()
        refused = ""
        if job is not None:
            # A limit shorter than the way to the first step would requeue the job for ever.
            stuck = slurm.restarts() > 0 and not self.stepped
            refused = "it made no step since its last start; give it more time" if stuck else slurm.requeue(job)
        if job is None:
            print(f"{said}; {by_hand}", file=sys.stderr, flush=True)
        elif refused:
            print(f"{said}; not requeued: {refused}; {by_hand}", file=sys.stderr, flush=True)
        else:
            print(f"{said}; job {job} is requeued and goes on from there", file=sys.stderr, flush=True)
        return job is not None and not refused
