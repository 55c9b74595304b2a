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

from torchcell.io.errors import InputError

KEY = "torchcell_epoch"
"""Of a checkpoint that was saved within an epoch: what each process holds besides weights, optimizer and progress."""


class Told(Protocol):
    """What the callback needs of ``torchcell.training.distributed.slurm.Signals``."""

    told: int
    training: bool
    stepped: bool
    where: str

    def install(self) -> None:
        """Take the signals over."""

    def stopped(self) -> BaseException:
        """What to raise."""


class Requeue(lightning.Callback):
    """Saves ``last.ckpt`` once the run was told to end, and raises what ends it.

    Within an epoch it saves at the end of an optimizer step. The last step of an epoch and validation are left to the
    checkpoint that each epoch ends with. Of several processes any may have been told; all stop at the same step.

    A run that goes on gets back the state of its random numbers, the sums of the epoch's log and the position in the
    epoch's order. The last needs no more than a count, since the order is a function of seed and epoch.

    Args:
        signals: Notes the signal.
        last: Where to save.
        every_n_steps: Steps between two looks at what other processes were told.
    """

    def __init__(self, signals: Told, last: Path, every_n_steps: int = 10) -> None:
        self.signals, self.last, self.every_n_steps = signals, last, every_n_steps
        self._within = False
        self._resumed: list[Tensor] | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Take the signals over from the trainer; start a half epoch like a whole one, then set it to where it was."""
        self.signals.install()
        self.signals.training = True
        if self._resumed is None:
            return
        mine, self._resumed = self._resumed[trainer.global_rank], None
        # The trainer leaves these out for an epoch that has begun; but what they set is in no checkpoint.
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            callback.on_train_epoch_start(trainer, pl_module)
        pl_module.on_train_epoch_start()
        _restore(pl_module, mine)

    def on_test_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Take the signals over from the trainer."""
        self.signals.install()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Stop where the last epoch was saved whole."""
        if self._any_told(trainer):
            self.signals.where = f"epoch {trainer.current_epoch} would be next"
            raise self.signals.stopped()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop, if told so and at the end of a step."""
        self.signals.stepped = True
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.world_size > 1 and trainer.global_step % self.every_n_steps:
            return
        if self._any_told(trainer):
            self._within = True
            done, all_ = batch_idx + 1, int(trainer.num_training_batches)
            self.signals.where = f"epoch {trainer.current_epoch}, {done} of {all_} batches"
            trainer.save_checkpoint(self.last)
            raise self.signals.stopped()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """From here on nothing is left to save."""
        self.signals.training = False
        self.signals.where = "training is over, the scores are left"
        if self._any_told(trainer):
            raise self.signals.stopped()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """A run that fails does not wait for another step."""
        self.signals.training = False

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add what a half epoch needs."""
        if self._within:
            checkpoint[KEY] = _gather(trainer, pl_module, _packed(pl_module))

    def on_load_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep it until training starts.

        Raises:
            InputError: Another number of processes, to which the rest of the epoch would be dealt otherwise.
        """
        self._resumed = checkpoint.get(KEY)
        if self._resumed is not None and len(self._resumed) != trainer.world_size:
            raise InputError(
                f"{self.last} was saved within an epoch by {len(self._resumed)} processes and can't go on with "
                f"{trainer.world_size}: start as many, or go on from the best epoch with ckpt_path="
                f"{self.last.with_name('best.ckpt')}"
            )

    def _any_told(self, trainer: lightning.Trainer) -> bool:
        if trainer.world_size > 1:
            mine = torch.tensor(self.signals.told, device=trainer.strategy.root_device)
            self.signals.told = int(trainer.strategy.reduce(mine, reduce_op="max"))
        return bool(self.signals.told)


def _packed(model: Any) -> Tensor:
    """This process's state within the epoch as bytes, uint8 [n], so that processes can exchange it as tensors."""
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


def _gather(trainer: lightning.Trainer, model: Any, mine: Tensor) -> list[Tensor]:
    """The bytes of all processes, in the order of their ranks."""
    if trainer.world_size == 1:
        return [mine]
    sizes = model.all_gather(torch.tensor(len(mine), device=model.device)).tolist()
    padded = torch.zeros(max(sizes), dtype=torch.uint8, device=model.device)
    padded[: len(mine)] = mine.to(model.device)
    return [one[:size].cpu().clone() for one, size in zip(model.all_gather(padded), sizes, strict=True)]


def job_id() -> str | None:
    """The job's id, of an array's task as ``<array>_<task>``; None outside SLURM, and where the job is not this run's.

    A sweep's agent runs many in one job and ends those that it stops early by SIGTERM. ``SLURM_JOB_ID`` of an array's
    last task is that of the whole array: requeued by it, all tasks would start anew.
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

    A job that was cancelled, is out of time or preempted is no longer running, and is left alone: ``scontrol requeue``
    would bring back even what its user has just cancelled.

    Returns:
        Nothing where it worked; otherwise why not.
    """
    try:
        state = re.search(r"JobState=(\w+)", _scontrol("-o", "show", "job", job))
        if state is None or state[1] != "RUNNING":
            found = "unknown to SLURM" if state is None else f"{state[1].lower()} (cancelled, out of time or preempted)"
            return f"the job is {found}"
        _scontrol("requeue", job)
    except subprocess.CalledProcessError as error:
        return " ".join(str(error.stderr).split())
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""


def _scontrol(*arguments: str) -> str:
    done = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout


TOLD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""SLURM ends a job by the first; the second is what our job scripts ask for before the limit, submitit the third."""


class Stopped(SystemExit):
    """The run ended because it was told to; its exit status is 128 and the signal's number, as a shell's."""


class Signals:
    """Keeps signals from ending the process in the midst of a step.

    While the model trains a signal is only noted in ``told``, and ``Requeue`` saves at the next
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
        job = job_id()
        refused = ""
        if job is not None:
            # A limit shorter than the way to the first step would requeue the job for ever.
            stuck = restarts() > 0 and not self.stepped
            refused = "it made no step since its last start; give it more time" if stuck else requeue(job)
        if job is None:
            print(f"{said}; {by_hand}", file=sys.stderr, flush=True)
        elif refused:
            print(f"{said}; not requeued: {refused}; {by_hand}", file=sys.stderr, flush=True)
        else:
            print(f"{said}; job {job} is requeued and goes on from there", file=sys.stderr, flush=True)
        return job is not None and not refused
