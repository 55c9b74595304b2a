"""Warns when one term of the objective drowns the others."""

from __future__ import annotations

import lightning
from lightning.pytorch.utilities.rank_zero import rank_zero_warn


class LossShare(lightning.Callback):
    """Warns once a term that has company makes up nearly all of the objective for an epoch.

    Args:
        limit: Share of the total above which it warns.
    """

    def __init__(self, limit: float = 0.9) -> None:
        self.limit = limit
        self._warned: set[str] = set()

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare the shares of the last finished epoch."""
        metrics = trainer.callback_metrics
        shares = {name: float(value) for name, value in metrics.items() if name.startswith("train/share/")}
        for name, share in shares.items():
            if len(shares) > 1 and share > self.limit and name not in self._warned:
                self._warned.add(name)
                term = name.removeprefix("train/share/")
                rank_zero_warn(
                    f"the term {term!r} was {share:.1%} of the objective for an epoch; "
                    f"the others hardly count: look at model.loss_weights.{term}"
                )
