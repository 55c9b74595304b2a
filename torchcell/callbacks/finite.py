"""Stops a run whose loss or weights are no longer numbers; names the term, the step and the samples of that batch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from torchcell.data.errors import InputError, some


@dataclass(frozen=True, eq=False)
class _Seen:
    """One batch: its loss and terms on the device, its samples' numbers, and the steps that were made before it."""

    loss: Tensor
    terms: dict[str, Tensor]
    sample: Tensor
    step: int


class FiniteLoss(lightning.Callback):
    """Looks at the loss every few steps, so that a GPU need not wait for it at each, and at the weights each epoch.

    Args:
        every_n_steps: Steps between two looks; the batches in between are remembered by sample number.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._recent: deque[_Seen] = deque(maxlen=every_n_steps)
        self._step = 0

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember how many steps were made."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Remember the batch; look when it is time."""
        self._recent.append(_Seen(outputs["loss"].detach(), dict(pl_module.step_terms), batch.sample, self._step))
        if len(self._recent) == self.every_n_steps:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look at what is left of the epoch, and at the weights, before they are saved.

        Raises:
            InputError: The last step of all has spoilt the weights, which no loss has met yet.
        """
        self._look(trainer)
        weights = dict(pl_module.named_parameters())
        whole = torch.stack([torch.isfinite(weight).all() for weight in weights.values()])
        if not whole.all():
            bad = [name for name, fine in zip(weights, whole.tolist(), strict=True) if not fine]
            raise InputError(
                f"weights became NaN or infinite in epoch {trainer.current_epoch}, by step {trainer.global_step}, "
                f"though every loss was a number: {some(bad)}; lower model.optimizer.lr or trainer.gradient_clip_val"
                f"{_last_good(trainer)}"
            )

    def _look(self, trainer: lightning.Trainer) -> None:
        losses = torch.stack([seen.loss for seen in self._recent]) if self._recent else torch.zeros(1)
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            seen = self._recent[int(bad[0])]
            names = trainer.datamodule.sample_id[seen.sample.cpu().numpy()]  # type: ignore[attr-defined]
            terms = [f"{name} {float(value):.4g}" for name, value in seen.terms.items() if not torch.isfinite(value)]
            raise InputError(
                f"the loss became {float(seen.loss)} in epoch {trainer.current_epoch} at step {seen.step + 1} "
                f"(terms: {', '.join(terms) or 'all finite, their sum is not'}), in the batch with the {len(names)} "
                f"samples {some(names)}; look at their values, or lower model.optimizer.lr{_last_good(trainer)}"
            )
        self._recent.clear()


def _last_good(trainer: lightning.Trainer) -> str:
    """Where the weights of the last epoch without fault are."""
    folders = [each.dirpath for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    for folder in folders:
        last = Path(str(folder)) / "last.ckpt"
        if last.is_file():
            return f". The last good weights are {last}: start from them with init_from={last}"
    return ". No epoch was finished before, so no weights are saved"
