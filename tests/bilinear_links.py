"""A throwaway model and a throwaway baseline of links; see ``tests/knowledge_graph/test_link_run``."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from torch import Tensor, nn

from torchcell.core.model import Model
from torchcell.core.predictor import Predictor
from torchcell.knowledge_graph.datamodule import LinkBatch
from torchcell.knowledge_graph.record import Links
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec


class Bilinear(Model):
    """Product of free node vectors, the same number in each output."""

    def __init__(self, spec: KnowledgeGraphSpec, optimizer: Any = None, width: int = 16) -> None:
        super().__init__(spec, optimizer)
        self.node = nn.Embedding(len(spec.knowledge_graph.node_id), width)
        nn.init.normal_(self.node.weight, std=0.3)

    def forward(self, batch: LinkBatch) -> Tensor:
        score = (self.node(batch.source_node) * self.node(batch.target_node)).sum(1, keepdim=True)
        return score.expand(len(batch), len(self.spec.outputs))


class Degrees(Predictor):
    """Sum of the ends' degrees in what may be seen."""

    degree: np.ndarray

    def fit(self, train: Links, val: Links, graph: None = None) -> Self:
        seen = train.graph
        ends = np.concatenate([seen.source_index, seen.target_index])
        self.degree = np.bincount(ends, minlength=len(seen.node_id)).astype(np.float32)
        return self

    def predict(self, record: Links) -> np.ndarray:
        assert np.isnan(record.label[:1]).all()
        score = self.degree[record.source_index] + self.degree[record.target_index]
        return np.repeat(score[:, None], len(record.outputs), axis=1)
