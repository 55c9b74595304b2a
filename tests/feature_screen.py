"""A throwaway model that knows genes by their features, so that it can take added ones and other organisms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchcell.core.model import Model
from torchcell.core.spec import Spec
from torchcell.screen.datamodule import PerturbationBatch


class FeatureScreen(Model):
    """y = b + sum over the set of w f_i + e_i; an added gene has no e_i. It looks at genes whose features are alike."""

    adds_genes = True

    def __init__(self, spec: Spec, free: bool = True, optimizer: Any = None) -> None:
        super().__init__(spec, optimizer)
        assert spec.gene_features is not None
        values = torch.from_numpy(spec.gene_features.values)
        self.register_buffer("values", values, persistent=False)
        self.effect = nn.Linear(values.shape[1], len(spec.outputs), bias=False)
        self.free = nn.Embedding(spec.n_trained_with, len(spec.outputs)) if free else None

    def effects(self) -> Tensor:
        effect = self.effect(self.values)
        if self.free is None:
            return effect
        return effect + nn.functional.pad(self.free.weight, (0, 0, 0, len(effect) - len(self.free.weight)))

    def forward(self, batch: PerturbationBatch) -> Tensor:
        effect = self.effects()[batch.gene]
        total = effect.new_zeros(len(batch), effect.shape[1]).index_add(0, batch.owner, effect)
        return self.center + self.scale * total

    def attended(self, batch: PerturbationBatch) -> Tensor:
        query = self.values.new_zeros(len(batch), self.values.shape[1])
        query = query.index_add(0, batch.owner, self.values[batch.gene])
        return torch.softmax(query @ self.values.T, dim=1)
