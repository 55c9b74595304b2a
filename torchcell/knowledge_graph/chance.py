"""Warns when links are separated from negatives no better than by a coin, epoch after epoch."""

from __future__ import annotations

import lightning
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from torchcell.io.configurable import CALLBACKS, configurable

NAME = "val_sample/link_bce"


@configurable(place=CALLBACKS)
class ChanceLoss(lightning.Callback):
    """Warns once if mean BCE of positives + mean BCE of as many negatives stays high after the warm-up.

    The measure is 2 ln 2 = 1.386 at constant log-odds of 0. A loss that stands there for epochs is no slow learner: it
    has been an index that paired the wrong nodes. Models that log no such measure are not watched.

    Args:
        limit: Above it the loss is at chance.
        patience: Epochs after the learning rate's warm-up before it looks.
    """

    def __init__(self, limit: float | int = 1.2, patience: int = 3) -> None:
        self.limit, self.patience = limit, patience
        self._warm: int | None = None
        self._warned = False

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare this epoch's measure."""
        if NAME not in trainer.callback_metrics or self._warned:
            return
        if self._warm is None and trainer.global_step >= getattr(pl_module, "warmup_steps", 0):
            self._warm = trainer.current_epoch
        value = float(trainer.callback_metrics[NAME])
        if self._warm is not None and trainer.current_epoch >= self._warm + self.patience and value > self.limit:
            self._warned = True
            rank_zero_warn(
                f"{NAME} is {value:.3f} in epoch {trainer.current_epoch}, and constant log-odds have 1.386: links are "
                "hardly separated from non-links. Look whether the labels fit the nodes, at model.optimizer.lr, and "
                "for collapsed embeddings (python -m torchcell.embed)"
            )
