"""Signals and SLURM: save in time, be requeued, go on."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

import lightning
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from torchcell.io.errors import InputError, readable

KEY = "torchcell_epoch"
"""Key of a checkpoint within an epoch for the state of each process besides weights, optimizer and progress."""


class SignalState(Protocol):
    """The part of ``Signals`` that the callback uses."""

    received: int
    training: bool
    stepped: bool
    where: str

    def install(self) -> None:
        """Install the signal handlers."""

    def stopped(self) -> BaseException:
        """The exception to raise."""


class Requeue(lightning.Callback):
    """Saves ``last.ckpt`` after a termination signal, and raises an exception that ends the run.

    Within an epoch it saves at the end of an optimizer step. After the last step of an epoch, and in validation, the
    checkpoint at the end of the epoch is enough. Any of several processes may get the signal; all stop at one step.

    A run that goes on restores its random numbers, the sums of the epoch's log and the position in the epoch's order.
    For the position a count is enough, since the order is a function of seed and epoch.

    Args:
        signals: Notes the signal.
        last: Path of the checkpoint.
        every_n_steps: Steps between two exchanges with other processes.
    """

    def __init__(self, signals: SignalState, last: Path, every_n_steps: int = 10) -> None:
        self.signals, self.last, self.every_n_steps = signals, last, every_n_steps
        self._within = False
        self._resumed: list[Tensor] | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Install the signal handlers; start a half epoch like a whole one, then restore its state."""
        self.signals.install()
        self.signals.training = True
        if self._resumed is None:
            return
        own, self._resumed = self._resumed[trainer.global_rank], None
        # The trainer does not call these for an epoch that has begun, but what they set is in no checkpoint.
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            callback.on_train_epoch_start(trainer, pl_module)
        pl_module.on_train_epoch_start()
        _restore(pl_module, own)

    def on_test_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Install the signal handlers instead of the trainer's."""
        self.signals.install()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Stop after a whole epoch, which is saved."""
        if self._any_received(trainer):
            self.signals.where = f"epoch {trainer.current_epoch} would be next"
            raise self.signals.stopped()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop at the end of a step after a signal."""
        self.signals.stepped = True
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.world_size > 1 and trainer.global_step % self.every_n_steps:
            return
        if self._any_received(trainer):
            self._within = True
            n_batches = int(trainer.num_training_batches)
            self.signals.where = f"epoch {trainer.current_epoch}, {batch_idx + 1} of {n_batches} batches"
            trainer.save_checkpoint(self.last)
            raise self.signals.stopped()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """After training nothing is left to save."""
        self.signals.training = False
        self.signals.where = "training is over, the scores are left"
        if self._any_received(trainer):
            raise self.signals.stopped()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """A run that fails does not wait for another step."""
        self.signals.training = False

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the state within an epoch."""
        if self._within:
            checkpoint[KEY] = _gather(trainer, pl_module, _packed(pl_module))

    def on_load_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the state until training starts.

        Raises:
            InputError: Another number of processes, which would get other samples of the rest of the epoch.
        """
        self._resumed = checkpoint.get(KEY)
        if self._resumed is not None and len(self._resumed) != trainer.world_size:
            raise InputError(
                f"{self.last} was saved within an epoch by {len(self._resumed)} processes and can't go on with "
                f"{trainer.world_size}: start as many, or go on from the best epoch with ckpt_path="
                f"{self.last.with_name('best.ckpt')}"
            )

    def _any_received(self, trainer: lightning.Trainer) -> bool:
        if trainer.world_size > 1:
            own = torch.tensor(self.signals.received, device=trainer.strategy.root_device)
            self.signals.received = int(trainer.strategy.reduce(own, reduce_op="max"))
        return bool(self.signals.received)


def _packed(model: Any) -> Tensor:
    """State of this process within the epoch as bytes, uint8 [n], so that processes can exchange it as a tensor."""
    state: dict[str, Any] = {"epoch": model.epoch_state(), "random": torch.get_rng_state()}
    if model.device.type == "cuda":
        state["random_cuda"] = torch.cuda.get_rng_state(model.device)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _restore(model: Any, packed: Tensor) -> None:
    buffer = io.BytesIO(packed.cpu().numpy().tobytes())
    state = torch.load(buffer, map_location=model.device, weights_only=True)
    model.load_epoch_state(state["epoch"])
    torch.set_rng_state(state["random"].cpu())
    if "random_cuda" in state:
        torch.cuda.set_rng_state(state["random_cuda"].cpu(), model.device)


def _gather(trainer: lightning.Trainer, model: Any, own: Tensor) -> list[Tensor]:
    """The bytes of all processes, in the order of their ranks."""
    if trainer.world_size == 1:
        return [own]
    sizes = model.all_gather(torch.tensor(len(own), device=model.device)).tolist()
    padded = torch.zeros(max(sizes), dtype=torch.uint8, device=model.device)
    padded[: len(own)] = own.to(model.device)
    return [row[:size].cpu().clone() for row, size in zip(model.all_gather(padded), sizes, strict=True)]


def job_id() -> str | None:
    """Id of the job, ``<array>_<task>`` for a task of an array; None outside SLURM, and where the job has several runs.

    The agent of a sweep has many runs in one job, and ends those that it stops early by SIGTERM. ``SLURM_JOB_ID`` of
    the last task of an array is that of the whole array: a requeue by it would start all tasks again.
    """
    if os.environ.get("WANDB_SWEEP_ID"):
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often SLURM has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def requeue(job: str) -> str:
    """Put a running job back into its queue; it starts again with the same script and in the same folder.

    A job that was cancelled, is out of time or preempted is no longer running and is not requeued: ``scontrol requeue``
    would start even a job that its user has just cancelled.

    Returns:
        The reason where it failed, else an empty text.
    """
    try:
        state = re.search(r"JobState=(\w+)", _scontrol("-o", "show", "job", job))
        if state is None or state[1] != "RUNNING":
            status = (
                "unknown to SLURM" if state is None else f"{state[1].lower()} (cancelled, out of time or preempted)"
            )
            return f"the job is {status}"
        _scontrol("requeue", job)
    except subprocess.CalledProcessError as error:
        return " ".join(str(error.stderr).split())
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""


def _scontrol(*arguments: str) -> str:
    done = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout


TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
"""SLURM ends a job by the first; our job scripts request the second before the time limit, submitit the third. The last
is Ctrl-C, after which no job is put back into its queue."""


class Stopped(SystemExit):
    """The run ended by a signal; its exit status is 128 plus the number of the signal, as in a shell."""


class Signals:
    """Handles termination signals so that the process does not end within a step.

    While the model trains a signal is only noted in ``received``, and ``Requeue`` saves at the end of the next step. At
    any other time there is nothing to save, and the process ends at once, as it does after a second Ctrl-C.

    Args:
        last: The checkpoint from which the run can go on.
    """

    def __init__(self, last: Path) -> None:
        self.last = last
        self.received = 0
        self.training = False
        self.stepped = False
        self.insisted = False
        self.where = "before training"
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in TERMINATION_SIGNALS}
        self.install()
        return self

    def install(self) -> None:
        """Install the handlers, also in place of those that the trainer has installed meanwhile."""
        if threading.current_thread() is threading.main_thread():
            for number in TERMINATION_SIGNALS:
                # In the background of a shell, and in processes that were started here, Ctrl-C is for others.
                if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT == number and not self.insisted:
            self.insisted = True
            self.where = f"{self.where}, at once"
            raise self.stopped()
        if not self.received:  # another signal must not disturb the end
            self.received = number
            if not self.training:
                raise self.stopped()
            if number == signal.SIGINT:
                self._say_saving()

    @rank_zero_only
    def _say_saving(self) -> None:
        """Print that Ctrl-C was heard. By a system call: a handler may have interrupted another print."""
        os.write(2, b"\nCtrl-C: saving at the end of this step; a second one ends the run at once\n")

    def stopped(self) -> Stopped:
        """The exception to raise."""
        return Stopped(128 + self.received)

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
        """Print what happens next; returns whether the job was requeued."""
        saved = self.last.is_file()
        text = f"{signal.Signals(self.received).name} ({self.where}): "
        text += f"saved {self.last}" if saved else "nothing to save yet"
        by_hand = "go on with ckpt_path=last" if saved else "start it again"
        job = None if self.received == signal.SIGINT else job_id()
        refused = ""
        if job is not None:
            # A time limit too short for the first step would requeue the job forever.
            stuck = restarts() > 0 and not self.stepped
            refused = "it made no step since its last start; give it more time" if stuck else requeue(job)
        if job is None:
            print(readable(f"{text}; {by_hand}"), file=sys.stderr, flush=True)
        elif refused:
            print(readable(f"{text}; not requeued: {refused}; {by_hand}"), file=sys.stderr, flush=True)
        else:
            print(readable(f"{text}; job {job} is requeued and goes on from there"), file=sys.stderr, flush=True)
        return job is not None and not refused
