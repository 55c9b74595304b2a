"""``Lists``: the other pairs that an edge is ranked among while a model beside a prior trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from torchcell.knowledge_graph.record import NEGATIVES, KnowledgeGraph, Links, pair_keys

OTHERS = 150
"""Nodes at either end that an edge is ranked among; a smaller node type is taken whole, as Hetionet's 136 diseases."""
MOST = {"train": 1_000, "val": 100}
"""Edges an edge type that have lists: their priors, and columns, are in memory."""


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
        pairs = np.concatenate([one[2].reshape(-1, 2) for one in found])
        width = max(one[2].shape[2] for one in found)
        others, start = [], 0
        for *_, out in found:
            at = start + np.arange(out.size).reshape(out.shape)
            at = np.where(out, -1, at)
            others.append(np.pad(at, ((0, 0), (0, 0), (0, width - at.shape[2])), constant_values=-1))
            start += out.size
        edge = np.concatenate([one[0] for one in found])
        place, members = np.concatenate(others), np.unique(np.concatenate([one.ravel() for one in others]))
        members = members[members >= 0]  # the others are taken out: known edges need no prior
        place = np.where(place < 0, -1, np.searchsorted(members, place))
        of_pair = np.concatenate([np.repeat(one[0], out.size // max(len(out), 1)) for *one, out in found])[members]
        links = replace(
            record,
            edge_type=record.edge_type[of_pair],
            source_index=pairs[members, 0],
            target_index=pairs[members, 1],
            label=np.broadcast_to(np.float32(np.nan), (len(members), len(record.outputs))),
            positive=np.broadcast_to(np.False_, len(members)),
        )
        return cls(edge, np.concatenate([one[1] for one in found]), place, links)

    @staticmethod
    def _each(
        record: Links, parts: np.ndarray, seen: KnowledgeGraph, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Of each edge type and part: the edges [E], their column [E], pairs [E, 2, K, 2], and which do not count."""
        n_nodes, whole = len(record.node_id), record.graph
        for number, edge_type in enumerate(record.supervised):
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
                tails, heads = (_drawn(one, len(edges), rng) for one in (nodes[1], nodes[0]))
                width = max(tails.shape[1], heads.shape[1])
                pairs = np.full((len(edges), 2, width, 2), -1)
                pairs[:, 0, : tails.shape[1]] = np.stack(np.broadcast_arrays(source[:, None], tails), axis=-1)
                pairs[:, 1, : heads.shape[1]] = np.stack(np.broadcast_arrays(heads, target[:, None]), axis=-1)
                key = pair_keys(pairs[..., 0], pairs[..., 1], n_nodes, either_way)
                out = (pairs[..., 0] == pairs[..., 1]) | (pairs[..., 0] < 0) | np.isin(key, known)
                yield edges, np.full(len(edges), len(NEGATIVES) * number + NEGATIVES.index("uniform")), pairs, out


def _drawn(nodes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Nodes for each of n lists [n, K], at random; all of them where there are no more."""
    if len(nodes) <= OTHERS:
        return np.tile(nodes, (n, 1))
    return rng.choice(nodes, (n, OTHERS))
