"""Saves a run that is told to end at its next step, and lets it go on within the epoch, to the same weights."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Protocol

import lightning
import torch
from torch import Tensor

from torchcell.data.errors import InputError

KEY = "torchcell_epoch"
"""Of a checkpoint that was saved within an epoch: what each process holds besides weights, optimiser and progress."""


class Told(Protocol):
    """What the callback needs of ``torchcell.run.signals.Signals``."""

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

    Within an epoch it saves at the end of an optimiser step. The last step of an epoch and validation are left to the
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
