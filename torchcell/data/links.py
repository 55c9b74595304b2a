"""``Links``: edges of one metaedge and sampled non-edges as labelled samples, for link prediction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from torchcell.data.checks import as_positions, refuse, refuse_repeats, refuse_shapes
from torchcell.data.errors import InputError, near
from torchcell.data.knowledge_graph import KnowledgeGraph, link_ids


@dataclass(frozen=True, eq=False)
class Links:
    """Candidate links of one metaedge; n samples.

    Attributes:
        name: Short name, e.g. ``hetionet_core:CtD``.
        node_id: Ids of all nodes of the graph [N].
        metaedge: The type of all candidates.
        source_index: Positions in ``node_id``, int64 [n].
        target_index: Positions in ``node_id``, int64 [n].
        label: 1 for an edge, 0 for a sampled non-edge (which nobody has ruled out), float32 [n, 1].
        sample_id: ``source|metaedge|target`` [n].
    """

    name: str
    node_id: np.ndarray
    metaedge: str
    source_index: np.ndarray
    target_index: np.ndarray
    label: np.ndarray
    sample_id: np.ndarray

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def target(self) -> np.ndarray:
        """The labels [n, 1]; every record kind names its target so."""
        return self.label

    @property
    def task(self) -> str:
        """What the target is: 0 or 1."""
        return "binary"

    @property
    def phenotype_names(self) -> tuple[str, ...]:
        """Name of the target's one column: the metaedge."""
        return (self.metaedge,)

    def subset(self, index: np.ndarray) -> Links:
        """The candidates at ``index`` (integers or a mask), in that order; the nodes stay whole."""
        at = as_positions(index)
        names = ("source_index", "target_index", "label", "sample_id")
        return replace(self, **{name: getattr(self, name)[at] for name in names})

    def validate(self) -> Links:
        """Return self, or raise one ``InputError`` that names the offending candidates."""
        n, ids = len(self.sample_id), self.sample_id
        refuse_shapes(self.name, vars(self), {"source_index": (n,), "target_index": (n,), "label": (n, 1)})
        refuse_repeats(self.name, ids, "links")
        for index in (self.source_index, self.target_index):
            outside = (index < 0) | (index >= len(self.node_id))
            refuse(self.name, ids[outside], "an end outside the node table", "drop it")
        odd = ~np.isin(self.label[:, 0], (0, 1))
        refuse(self.name, ids[odd], "a label other than 0 or 1", "recode it")
        return self


def link_samples(
    graph: KnowledgeGraph,
    metaedge: str,
    negatives_per_positive: int = 1,
    seed: int = 0,
    negatives: Literal["matched", "uniform"] = "matched",
) -> Links:
    """All edges of one metaedge, then sampled pairs of the same kinds that are no edge of it.

    Args:
        graph: A validated graph.
        metaedge: Which edges to predict.
        negatives_per_positive: Sampled non-edges per edge.
        seed: Of the sampling.
        negatives: ``matched`` draws both ends in proportion to their degree in this metaedge, so that
            the degree alone tells little; ``uniform`` draws from all nodes of the two kinds.

    Raises:
        InputError: An unknown metaedge, or more negatives than half of the pairs that are no edge.
    """
    if metaedge not in graph.metaedges:
        hint = near(metaedge, graph.metaedges) or list(graph.metaedges)
        raise InputError(f"{graph.name}: no metaedge {metaedge!r}; the nearest are {hint}")
    edges = graph.subset(graph.metaedge == metaedge)
    ends = [edges.source_index, edges.target_index]
    kinds = [graph.node_kind[end[0]] for end in ends]
    either_way = kinds[0] == kinds[1] and metaedge not in graph.directed
    if negatives == "uniform":
        pools = [np.flatnonzero(graph.node_kind == kind) for kind in kinds]
    elif either_way:  # a node's degree counts edges that name it at either end
        pools = [np.concatenate(ends)] * 2
    else:
        pools = ends
    wanted, n_nodes = negatives_per_positive * len(edges), len(graph.node_id)
    n_ends = [len(np.unique(pool)) for pool in pools]
    room = (n_ends[0] * (n_ends[0] - 1) // 2 if either_way else n_ends[0] * n_ends[1]) - len(edges)
    if wanted > room // 2:  # a draw with rejection is quick only while most pairs are free
        raise InputError(
            f"{graph.name}: {wanted} negatives of {metaedge} are asked for, but only {room} pairs of these nodes "
            "are no edge and at most half of them are drawn; lower negatives_per_positive"
        )
    rng = np.random.default_rng(seed)
    taken = _keys(ends[0], ends[1], n_nodes, either_way)
    found = np.empty((0, 2), dtype=np.int64)
    while len(found) < wanted:
        drawn = np.stack([rng.choice(pool, 2 * wanted) for pool in pools], axis=1)
        both = np.concatenate([found, drawn[drawn[:, 0] != drawn[:, 1]]])
        keys = _keys(both[:, 0], both[:, 1], n_nodes, either_way)
        _, first = np.unique(keys, return_index=True)
        first = np.sort(first)
        found = both[first[~np.isin(keys[first], taken)]]
    source, target = np.concatenate([np.stack(ends, axis=1), found[:wanted]]).T
    return Links(
        name=f"{graph.name}:{metaedge}",
        node_id=graph.node_id,
        metaedge=metaedge,
        source_index=source,
        target_index=target,
        label=(np.arange(len(source)) < len(edges)).astype(np.float32)[:, None],
        sample_id=link_ids(graph.node_id[source], metaedge, graph.node_id[target]),
    ).validate()


def _keys(source: np.ndarray, target: np.ndarray, n_nodes: int, either_way: bool) -> np.ndarray:
    """One number per pair; of an undirected relation the same number in both directions."""
    if either_way:
        source, target = np.minimum(source, target), np.maximum(source, target)
    return source * n_nodes + target
