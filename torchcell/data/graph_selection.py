"""A part of a knowledge graph: edges of some licences, nodes that have edges, the best-connected nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from torchcell.data.errors import InputError, near
from torchcell.data.knowledge_graph import KnowledgeGraph

NOT_STATED = "not stated"
"""Licence of an edge whose cell in the table is empty."""


def of_licences(graph: KnowledgeGraph, licences: Sequence[str] | None) -> KnowledgeGraph:
    """The edges of the named licences; all of them where none is named.

    Args:
        graph: With a licence an edge.
        licences: As they are written in the edge table; ``NOT_STATED`` for an empty cell.

    Raises:
        InputError: A graph without licences, or a licence that no edge has; the message lists those there are.
    """
    if licences is None:
        return graph
    if graph.licence is None:
        raise InputError(f"{graph.name}: its edge table has no column of licences; set licences=null")
    held = np.where(graph.licence == "", NOT_STATED, graph.licence)
    names, counts = np.unique(held, return_counts=True)
    unknown = [name for name in licences if name not in names]
    if unknown or not licences:
        there = ", ".join(f"{name!r} ({count:,} edges)" for name, count in zip(names.tolist(), counts, strict=True))
        hint = [hit for name in unknown for hit in near(name, names.tolist())]
        nearest = f"; the nearest are {hint}" if hint else ""
        raise InputError(f"{graph.name}: no edge has the licence {unknown}{nearest}; there are {there}")
    kept = np.isin(held, licences)
    return _count(graph.subset(kept), {"edges of other licences": int((~kept).sum())})


def connected(graph: KnowledgeGraph) -> KnowledgeGraph:
    """The nodes that have an edge, and the kinds that have such nodes: of any other nothing can be learned."""
    used = np.zeros(len(graph.node_id), dtype=bool)
    used[graph.source_index], used[graph.target_index] = True, True
    return _of_nodes(graph, used, "nodes without an edge")


def best_connected(graph: KnowledgeGraph, limit: int | None) -> KnowledgeGraph:
    """At most ``limit`` nodes, for trials: of each kind the same share, those with most edges, and the edges between.

    Degrees count all edges, also those that are tested later: a score on a limited graph is no result.

    Args:
        graph: N nodes.
        limit: Number of nodes; None keeps all. Fewer are left where one loses all its edges.

    Raises:
        InputError: Fewer nodes than two a kind.
    """
    if limit is None or limit >= len(graph.node_id):
        return graph
    if limit < 2 * len(graph.kinds):
        raise InputError(f"limit_nodes={limit}: {len(graph.kinds)} kinds need at least {2 * len(graph.kinds)} nodes")
    n_nodes = len(graph.node_id)
    degree = np.bincount(np.concatenate([graph.source_index, graph.target_index]), minlength=n_nodes)
    kept = np.zeros(n_nodes, dtype=bool)
    for kind in graph.kinds:
        of_kind = np.flatnonzero(graph.node_kind == kind)
        share = max(2, len(of_kind) * limit // n_nodes)
        kept[of_kind[np.argsort(-degree[of_kind], kind="stable")[:share]]] = True
    return connected(_of_nodes(graph, kept, f"nodes beyond limit_nodes={limit}"))


def _of_nodes(graph: KnowledgeGraph, kept: np.ndarray, why: str) -> KnowledgeGraph:
    """The nodes in the mask ``kept`` [N] with the edges between them; what goes is counted."""
    whole = kept[graph.source_index] & kept[graph.target_index]
    part = graph.subset(whole)
    kind = graph.node_kind[kept]
    nodes = replace(
        part,
        node_id=graph.node_id[kept],
        node_name=graph.node_name[kept],
        node_kind=kind,
        kinds=tuple(name for name in graph.kinds if (kind == name).any()),
        directed=tuple(name for name in graph.directed if name in part.metaedges),
    )
    gone = sorted(set(graph.metaedges) - set(nodes.metaedges))
    lost = {why: int((~kept).sum()), "edges of such nodes": int((~whole).sum())}
    return _count(nodes, lost | {f"metaedges without edges left ({', '.join(gone)})": len(gone)})


def _count(graph: KnowledgeGraph, lost: dict[str, int]) -> KnowledgeGraph:
    """The graph with what was left out of it; nothing is counted where nothing was."""
    total = dict(graph.lost)
    for what, n in lost.items():
        total[what] = total.get(what, 0) + n
    return replace(graph, lost={what: n for what, n in total.items() if n})
