"""What ``HGTEmbedder`` reads off its spec and its config: the message graph, kinds by name, what reads walks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
from torch import nn

from torchcell.data.errors import InputError, near, some
from torchcell.datamodules.spec import Spec
from torchcell.graph.typed_graph import TypedGraph
from torchcell.metrics.embedding_levels import TrainingBounds
from torchcell.nn.walk_scores import WalkScores


def message_graph(spec: Spec) -> TypedGraph:
    """The graph of the spec, with edges to train on."""
    if "knowledge_graph" not in spec.extras:
        raise InputError("HGTEmbedder reads a knowledge graph; choose data of links, e.g. data=hetionet_core")
    nodes = TypedGraph.from_plain(spec.extras["knowledge_graph"])
    empty = [name for name in spec.extras["supervised"] if not len(nodes.edges(name)[0])]
    if empty:
        raise InputError(f"no edges of {some(empty)} are left to train on; change the split or data.metaedges")
    return nodes


def health_bounds(chosen: Mapping[str, float | int] | None) -> TrainingBounds:
    """The bounds by which a kind's vectors count as healthy; those not named are the usual ones."""
    known = [one.name for one in fields(TrainingBounds)]
    unknown = [name for name in chosen or {} if name not in known]
    if unknown:
        raise InputError(f"model.health has no bound {some(unknown)}; it has {known}")
    return TrainingBounds(**(chosen or {}))


def alike_kinds(nodes: TypedGraph, chosen: Sequence[str] | None, supervised: Sequence[str]) -> list[int]:
    """Numbers of the kinds whose similar nodes attract."""
    if chosen is None:
        return sorted({kind for name in supervised for kind in nodes.ends[name]})
    for name in chosen:
        if name not in nodes.kinds:
            hint = near(name, nodes.kinds) or list(nodes.kinds)
            raise InputError(f"model.contrastive_kinds: no kind {name!r}; the nearest are {hint}")
    return [nodes.kinds.index(name) for name in chosen]


def walk_readers(nodes: TypedGraph, supervised: Sequence[str], most: int, steps: int, hidden: int) -> nn.ModuleDict:
    """``WalkScores`` of the supervised metaedges whose kinds have at most so many pairs, by the metaedge's number."""
    relations = [(relation.source, relation.target) for relation in nodes.relations]
    sizes, readers = np.diff(nodes.bounds).tolist(), nn.ModuleDict()
    for name in supervised:
        if math.prod(sizes[kind] for kind in nodes.ends[name]) <= most:
            own = [number for number, relation in enumerate(nodes.relations) if relation.metaedge == name]
            reader = WalkScores(relations, sizes, (own[0], own[-1]), nodes.csrs(), steps, hidden)
            readers[str(nodes.metaedges.index(name))] = reader
    return readers
