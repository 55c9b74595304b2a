"""``PriorAlone``: a prior as the model of a run, alone or with a small network on its columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchcell.core.model import Model
from torchcell.nn.residual import ResidualOptions


class PriorAlone(Model):
    """No network of its own: the prediction is that of ``model.prior``, corrected by ``model.residual`` if it is set.

    For data of every task. Without ``model.residual`` it trains for one epoch, in which nothing changes, and the
    baseline that is the prior is not scored a second time.
    """

    idle: nn.Parameter | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_parameter("idle", None)

    def take_prior(self, averaged: bool = False, residual: ResidualOptions | None = None) -> None:
        """See ``Model``; without ``residual`` it has one idle weight: an optimizer, and DDP, need one."""
        super().take_prior(averaged, residual)
        if residual is None:
            self.idle = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Any) -> Tensor:
        """The starting point [B, T], which the prior's prediction takes the place of."""
        start_BT = self.starting_point(batch).expand(len(batch), -1)
        return start_BT if self.idle is None else start_BT + 0.0 * self.idle

    @property
    def is_prior_alone(self) -> bool:
        """True without ``model.residual``."""
        return self.idle is not None

    def on_train_epoch_end(self) -> None:
        """See ``Model``; one epoch of a prior alone is like another."""
        super().on_train_epoch_end()
        self.trainer.should_stop |= self.is_prior_alone
