"""``KnowledgeGraphSpec``: what a model of a knowledge graph knows about its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from torchcell.core.spec import INDICES, Spec
from torchcell.knowledge_graph import metrics  # noqa: F401  whoever reads a spec knows how its targets are scored


@dataclass(frozen=True, eq=False)
class PlainGraph:
    """A ``TypedGraph`` as plain values; ``TypedGraph.from_plain`` makes it of them, and refuses another hash.

    Attributes:
        node_id: Ids of the N nodes, type by type.
        node_name: Their names for people.
        node_types: The K node types.
        bounds: Node type k holds the nodes ``bounds[k]`` to ``bounds[k + 1]`` [K + 1].
        ends: Edge type -> numbers of its node types of source and target.
        edges: Edge type -> sources and targets among all nodes, int32 [E] each.
        symmetric: The edge types whose directions mean the same, sorted.
        from_record: Where each node of the record stands here, int64 [N].
        hash: Over all of this.
    """

    node_id: tuple[str, ...] = field(metadata=INDICES)
    node_name: tuple[str, ...] = field(metadata=INDICES)
    node_types: tuple[str, ...] = field(metadata=INDICES)
    bounds: tuple[int, ...] = field(metadata=INDICES)
    ends: Mapping[str, tuple[int, int]] = field(metadata=INDICES)
    edges: Mapping[str, tuple[Int[Tensor, " E"], Int[Tensor, " E"]]]
    symmetric: tuple[str, ...] = field(metadata=INDICES)
    from_record: Int[Tensor, " N"]
    hash: str

    def __len__(self) -> int:
        return len(self.node_id)


@dataclass(frozen=True, eq=False, kw_only=True)
class KnowledgeGraphSpec(Spec):
    """Two nodes and an edge type in, whether there is such an edge out; see ``Spec`` for what all tasks have.

    ``genes`` is empty. ``outputs`` are, for each supervised edge type, its edges against non-edges drawn by degree
    (``_matched``) and alike from all nodes (``_uniform``). A batch is a
    ``torchcell.knowledge_graph.datamodule.LinkBatch``.

    Attributes:
        knowledge_graph: The message graph: all edges but the supervised ones of validation and test.
        supervised: The edge types that are predicted, in the order of the outputs.
    """

    WORDS: ClassVar[str] = "knowledge graphs"
    LISTED: ClassVar[bool] = True

    knowledge_graph: PlainGraph = field(metadata=INDICES)
    supervised: tuple[str, ...] = field(metadata=INDICES)
