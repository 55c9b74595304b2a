"""Sampled pairs of nodes that are no edge of a metaedge: in proportion to degree, or alike from all nodes."""

from __future__ import annotations

import numpy as np

from torchcell.data.errors import InputError
from torchcell.data.knowledge_graph import KnowledgeGraph


def draw_negatives(
    graph: KnowledgeGraph, edges: KnowledgeGraph, wanted: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Non-edges of one metaedge, each pair drawn once: no uniform one is a matched one too.

    Args:
        graph: All nodes and edges.
        edges: All edges of the metaedge.
        wanted: Pairs of each kind.
        rng: Draws them.

    Returns:
        Matched pairs, whose ends are drawn in proportion to their degree in this metaedge, so that the degree alone
        tells little; and uniform ones, drawn from all nodes of the two kinds. Positions, int64 [wanted, 2] each.

    Raises:
        InputError: More pairs than a draw with rejection finds quickly.
    """
    (metaedge,) = edges.metaedges
    ends = [edges.source_index, edges.target_index]
    either_way = metaedge in graph.symmetric
    # A node's degree counts the edges that name it at either end, where the ends mean the same.
    matched = [np.concatenate(ends)] * 2 if either_way else ends
    uniform = [np.flatnonzero(graph.node_kind == kind) for kind in graph.ends[metaedge]]
    n_nodes = len(graph.node_id)
    taken = pair_keys(ends[0], ends[1], n_nodes, either_way)
    found = []
    for pools in (matched, uniform):
        sizes = [len(np.unique(pool)) for pool in pools]
        room = (sizes[0] * (sizes[0] - 1) // 2 if either_way else sizes[0] * sizes[1]) - len(taken)
        if wanted > room // 2:  # a draw with rejection is quick only while most pairs are free
            raise InputError(
                f"{graph.name}: {wanted:,} negatives of {metaedge} are asked for, but only {room:,} pairs of these "
                "nodes are no edge and at most half of them are drawn; lower negatives_per_positive"
            )
        pairs = _draw(pools, wanted, taken, n_nodes, either_way, rng)
        taken = np.concatenate([taken, pair_keys(pairs[:, 0], pairs[:, 1], n_nodes, either_way)])
        found.append(pairs)
    return found[0], found[1]


def pair_keys(source: np.ndarray, target: np.ndarray, n_nodes: int, either_way: bool) -> np.ndarray:
    """One number per pair, int64 [n]; where the ends mean the same, the same number in both directions."""
    if either_way:
        source, target = np.minimum(source, target), np.maximum(source, target)
    return source * n_nodes + target


def _draw(
    pools: list[np.ndarray], wanted: int, taken: np.ndarray, n_nodes: int, either_way: bool, rng: np.random.Generator
) -> np.ndarray:
    """Distinct pairs with an end from each pool, none of them a loop or ``taken`` [wanted, 2]."""
    found = np.empty((0, 2), dtype=np.int64)
    while len(found) < wanted:
        drawn = np.stack([rng.choice(pool, 2 * wanted) for pool in pools], axis=1)
        both = np.concatenate([found, drawn[drawn[:, 0] != drawn[:, 1]]])
        keys = pair_keys(both[:, 0], both[:, 1], n_nodes, either_way)
        first = np.sort(np.unique(keys, return_index=True)[1])
        found = both[first[~np.isin(keys[first], taken)]]
    return found[:wanted]
