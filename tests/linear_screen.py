"""The throwaway linear model of a screen: the sum of one effect a gene."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from torchcell.core.model import Model
from torchcell.core.spec import Spec
from torchcell.screen.datamodule import PerturbationBatch


class AdditiveScreen(Model):
    """y = b + sum of w over the set."""

    def __init__(self, spec: Spec, optimizer: Any = None) -> None:
        super().__init__(spec, optimizer)
        self.effect = nn.Embedding(len(spec.genes), len(spec.outputs))
        nn.init.zeros_(self.effect.weight)

    def forward(self, batch: PerturbationBatch) -> Tensor:
        effect = self.effect(batch.gene)
        total = effect.new_zeros(len(batch), effect.shape[1]).index_add(0, batch.owner, effect)
        return self.center + self.scale * total
