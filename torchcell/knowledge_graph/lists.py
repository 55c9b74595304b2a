"""``Lists``: the other pairs that an edge is ranked among while a model beside a prior trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from torchcell.knowledge_graph.record import KnowledgeGraph, Links, pair_keys

OTHERS = 150
"""Nodes at either end that an edge is ranked among; a smaller node type is taken whole, as Hetionet's 136 diseases."""
MOST = {"train": 1_000, "val": 100}
"""Edges an edge type that have lists: their priors, and columns, are in memory."""


class _Drawn(NamedTuple):
    """Edges of one type and part [E], the pairs that each could be ranked among [E, 2, K, 2], and which of them do not
    count [E, 2, K].
    """

    edge_type: str
    edge: np.ndarray
    pairs: np.ndarray
    out: np.ndarray


@dataclass(frozen=True, eq=False)
class Lists:
    """Two lists for each of E edges: nodes in the place of its target, and of its source.

    Attributes:
        edge: Positions of the edges among the candidates, int64 [E].
        column: The output that the lists of each edge compare, int64 [E].
        others: Positions in ``links``, -1 where there are fewer, int64 [E, 2, K].
        links: The other pairs as candidates without labels.
    """

    edge: np.ndarray
    column: np.ndarray
    others: np.ndarray
    links: Links

    @classmethod
    def of(cls, record: Links, parts: np.ndarray, seen: KnowledgeGraph, seed: int) -> Lists:
        """Draw lists for edges of the training and the validation part, at most ``MOST`` an edge type.

        No known edge stands in a list: those of training know the edges of ``seen``, those of validation also the other
        edges of that part. Test edges are known to none, and may stand in them as any pair.

        Args:
            record: All candidates.
            parts: Part of each [n].
            seen: The message graph.
            seed: Of the draw.
        """
        found = list(cls._each(record, parts, seen, np.random.default_rng(seed)))
        width, others, start = max(one.out.shape[2] for one in found), [], 0
        for one in found:
            count: np.ndarray = np.cumsum(~one.out.ravel()).reshape(one.out.shape)
            at = np.where(one.out, -1, start + count - 1)
            others.append(np.pad(at, ((0, 0), (0, 0), (0, width - at.shape[2])), constant_values=-1))
            start += int((~one.out).sum())
        pairs = np.concatenate([one.pairs[~one.out] for one in found])
        links = replace(
            record,
            edge_type=np.concatenate([np.full(int((~one.out).sum()), one.edge_type) for one in found]),
            source_index=pairs[:, 0],
            target_index=pairs[:, 1],
            label=np.broadcast_to(np.float32(np.nan), (len(pairs), len(record.outputs))),
            positive=np.broadcast_to(np.False_, len(pairs)),
        )
        columns = [np.full(len(one.edge), record.outputs.index(f"{one.edge_type}_uniform")) for one in found]
        return cls(np.concatenate([one.edge for one in found]), np.concatenate(columns), np.concatenate(others), links)

    @staticmethod
    def _each(record: Links, parts: np.ndarray, seen: KnowledgeGraph, rng: np.random.Generator) -> Iterator[_Drawn]:
        n_nodes, whole = len(record.node_id), record.graph
        for edge_type in record.supervised:
            of_type = seen.edge_type == edge_type
            either_way = edge_type in whole.symmetric
            known = pair_keys(seen.source_index[of_type], seen.target_index[of_type], n_nodes, either_way)
            nodes = [np.flatnonzero(whole.node_type == node_type) for node_type in whole.ends[edge_type]]
            for part, most in MOST.items():
                edges = np.flatnonzero((record.edge_type == edge_type) & record.positive & (parts == part))
                source, target = record.source_index[edges], record.target_index[edges]
                if part == "val":
                    known = np.concatenate([known, pair_keys(source, target, n_nodes, either_way)])
                if len(edges) > most:
                    edges = np.sort(rng.choice(edges, most, replace=False))
                    source, target = record.source_index[edges], record.target_index[edges]
                tails, heads = (drawn(one, len(edges), rng) for one in (nodes[1], nodes[0]))
                width = max(tails.shape[1], heads.shape[1])
                pairs = np.full((len(edges), 2, width, 2), -1)
                pairs[:, 0, : tails.shape[1]] = np.stack(np.broadcast_arrays(source[:, None], tails), axis=-1)
                pairs[:, 1, : heads.shape[1]] = np.stack(np.broadcast_arrays(heads, target[:, None]), axis=-1)
                key = pair_keys(pairs[..., 0], pairs[..., 1], n_nodes, either_way)
                out = (pairs[..., 0] == pairs[..., 1]) | (pairs[..., 0] < 0) | np.isin(key, known)
                yield _Drawn(edge_type, edges, pairs, out)


def drawn(nodes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Nodes for each of n lists [n, K], at random; all of them where there are no more."""
    if len(nodes) <= OTHERS:
        return np.tile(nodes, (n, 1))
    return rng.choice(nodes, (n, OTHERS))
