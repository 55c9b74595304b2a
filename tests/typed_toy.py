"""A knowledge graph small enough to check by hand, and a model of it without any training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torchcell.core.model import Model
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
from torchcell.knowledge_graph.typed_graph import TypedGraph

KINDS, BOUNDS = ("Compound", "Disease"), (0, 4, 9)
IDS = np.array([*(f"Compound::{i}" for i in range(4)), *(f"Disease::{i}" for i in range(5))])
NAMES = np.array(["aspirin", "Ibuprofen", "twin", "twin", "flu", "gout", "asthma", "pain", "malaria"])


def toy_graph() -> TypedGraph:
    """Four compounds and five diseases; treatments and resemblances of diseases."""
    edges = {
        "CtD": (np.array([0, 0, 1, 2]), np.array([4, 5, 5, 7])),
        "DrD": (np.array([4, 6]), np.array([5, 8])),
    }
    return TypedGraph(IDS, NAMES, KINDS, BOUNDS, {"CtD": (0, 1), "DrD": (1, 1)}, edges, ["DrD"], np.arange(9))


def toy_spec(supervised: tuple[str, ...] = ("CtD",)) -> KnowledgeGraphSpec:
    """What a model of the graph is given."""
    outputs = tuple(f"{name}_{node_type}" for name in supervised for node_type in ("matched", "uniform"))
    own = {"knowledge_graph": toy_graph().to_plain(), "supervised": tuple(supervised)}
    zeros, ones = torch.zeros(len(outputs)), torch.ones(len(outputs))
    return KnowledgeGraphSpec("binary", outputs, (), (), zeros, ones, None, "0" * 64, **own)


class Dots(Model):
    """Scores a link by the dot product of two given vectors."""

    reads = KnowledgeGraphSpec

    def __init__(self, spec: KnowledgeGraphSpec, vectors: Tensor | None = None) -> None:
        super().__init__(spec)
        shape = (len(spec.knowledge_graph.node_id), 3)
        given = torch.randn(shape, generator=torch.Generator().manual_seed(0)) if vectors is None else vectors
        self.register_buffer("vectors", given)

    def forward(self, batch) -> Tensor:
        score = (self.vectors[batch.source_node] * self.vectors[batch.target_node]).sum(1)
        return score[:, None].expand(-1, len(self.spec.outputs))

    def node_embeddings(self) -> Tensor:
        return self.vectors
