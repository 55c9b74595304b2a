"""Filtered ranking of held-out edges: each one's target among all nodes of its kind, and its source likewise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from torchcell.data.knowledge_graph import KnowledgeGraph
from torchcell.data.links import NEGATIVES, Links

FULL = 1_000_000
"""Pairs of two kinds that are scored in one table for all edges; above, only the rows and columns that are needed."""
AT_ONCE = 4_000_000
"""Scores that are compared at a time: 32 MB."""

ENDS: tuple[str, ...] = ("tail", "head")
"""Which end is looked for: the target given the source, or the source given the target."""


@dataclass(frozen=True, eq=False)
class Block:
    """Candidates of one metaedge: every one of ``source`` [a] with every one of ``target`` [b], row by row.

    The first of them is the candidate number ``start`` of its metaedge.
    """

    source: np.ndarray
    target: np.ndarray
    start: int

    def __len__(self) -> int:
        return len(self.source) * len(self.target)

    def table(self, score: np.ndarray) -> np.ndarray:
        """The block's part of the scores of all candidates of the metaedge, as a table [a, b]."""
        return score[self.start : self.start + len(self)].reshape(len(self.source), len(self.target))


class LinkRanking:
    """Candidates for the ranking of a part's edges, and the ranks that scores give them.

    Metaedge by metaedge, so that the candidates of one are in memory at a time: Hetionet's 24 have 26 million.

    Args:
        links: Candidates of the part; their graph is what may be seen.
        known: All edges there are: those of the same metaedge leave an edge's list, but for the edge itself.
        limit: Edges a metaedge that are ranked where its kinds have more than ``FULL`` pairs; None ranks all.
        seed: Of the choice of edges.
    """

    def __init__(self, links: Links, known: KnowledgeGraph, limit: int | None, seed: int = 0) -> None:
        self.links, self.known = links, known
        self.edge = np.empty(0, dtype=np.int64)
        self._blocks: dict[str, tuple[Block, Block]] = {}
        for number, metaedge in enumerate(links.supervised):
            nodes = [np.flatnonzero(known.node_kind == kind) for kind in known.ends[metaedge]]
            chosen = np.flatnonzero((links.metaedge == metaedge) & links.positive)
            whole = len(nodes[0]) * len(nodes[1]) <= FULL
            if not whole and limit is not None and limit < len(chosen):
                chosen = np.sort(np.random.default_rng([seed, number]).permutation(chosen)[:limit])
            self.edge = np.concatenate([self.edge, chosen])
            given = [np.unique(end[chosen]) for end in (links.source_index, links.target_index)]
            tail = Block(nodes[0] if whole else given[0], nodes[1], start=0)
            head = tail if whole else Block(nodes[0], given[1], start=len(tail))
            self._blocks[metaedge] = (tail, head)

    @property
    def outputs(self) -> tuple[str, ...]:
        """``<metaedge>_tail`` and ``<metaedge>_head`` of each supervised metaedge, in order."""
        return tuple(f"{metaedge}_{end}" for metaedge in self.links.supervised for end in ENDS)

    def record(self, metaedge: str) -> Links:
        """All candidates of a metaedge that are to be scored, without labels."""
        blocks = list(dict.fromkeys(self._blocks[metaedge]))
        n = sum(map(len, blocks))
        return replace(
            self.links,
            metaedge=np.full(n, metaedge),
            source_index=np.concatenate([np.repeat(block.source, len(block.target)) for block in blocks]),
            target_index=np.concatenate([np.tile(block.target, len(block.source)) for block in blocks]),
            label=np.broadcast_to(np.float32(np.nan), (n, len(self.links.outputs))),
            positive=np.broadcast_to(np.False_, n),
        )

    def ranked(self) -> np.ndarray:
        """1 where an edge is ranked for an output, else NaN, float32 [m, 2 x metaedges]."""
        return self.together({name: np.ones((int(self._rows(name).sum()), 2)) for name in self.links.supervised})

    def ranks(self, metaedge: str, score: np.ndarray) -> np.ndarray:
        """The filtered rank of the target and the source of each edge of a metaedge.

        Args:
            metaedge: One that is supervised.
            score: Of its candidates in every output [n, T]; the metaedge's first output is read. A candidate without
                a score (NaN) stands below all others.

        Returns:
            Ranks, 1 is best and ties count half, float32 [edges of the metaedge, 2]; NaN where the edge has no score.
        """
        edge = self.edge[self._rows(metaedge)]
        source, target = self.links.source_index[edge], self.links.target_index[edge]
        true_source, true_target = self._true_pairs(metaedge)
        column = score[:, len(NEGATIVES) * self.links.supervised.index(metaedge)]
        tail, head = self._blocks[metaedge]
        of_target = _ranks(tail.table(column), tail.source, tail.target, source, target, (true_source, true_target))
        of_source = _ranks(head.table(column).T, head.target, head.source, target, source, (true_target, true_source))
        return np.stack([of_target, of_source], axis=1).astype(np.float32)

    def together(self, ranks: Mapping[str, np.ndarray]) -> np.ndarray:
        """The ranks of all edges, from those of each metaedge: float32 [m, 2 x metaedges], NaN in others' columns."""
        found = np.full((len(self.edge), len(self.outputs)), np.nan, dtype=np.float32)
        for number, metaedge in enumerate(self.links.supervised):
            columns = slice(len(ENDS) * number, len(ENDS) * (number + 1))
            found[self._rows(metaedge), columns] = ranks[metaedge]
        return found

    def _rows(self, metaedge: str) -> np.ndarray:
        """Which of the ranked edges are of a metaedge, bool [m]."""
        return self.links.metaedge[self.edge] == metaedge

    def _true_pairs(self, metaedge: str) -> tuple[np.ndarray, np.ndarray]:
        """Sources and targets that are no wrong answer: all edges, and within a kind each node with itself."""
        edges = self.known.subset(self.known.metaedge == metaedge)
        source, target = edges.source_index, edges.target_index
        kinds = self.known.ends[metaedge]
        if metaedge in self.known.symmetric:
            source, target = np.concatenate([source, target]), np.concatenate([target, source])
        if kinds[0] == kinds[1]:
            self_pairs = np.flatnonzero(self.known.node_kind == kinds[0])
            source, target = np.concatenate([source, self_pairs]), np.concatenate([target, self_pairs])
        return source, target


def _ranks(
    table: np.ndarray,
    given: np.ndarray,
    sought: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    true_pairs: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Ranks of the nodes ``other`` among ``sought``, in the rows of the nodes ``one``.

    Args:
        table: Scores [a, b].
        given: Nodes of its rows, sorted [a].
        sought: Nodes of its columns, sorted [b].
        one: Node of the row of each edge [m].
        other: Node that is looked for [m].
        true_pairs: Row and column node of what does not count against an edge [k] each.
    """
    row, column = np.searchsorted(given, one), np.searchsorted(sought, other)
    inside = np.isin(true_pairs[0], given)
    true_row = np.searchsorted(given, true_pairs[0][inside])
    true_column = np.searchsorted(sought, true_pairs[1][inside])
    true_column = true_column[np.argsort(true_row, kind="stable")]
    sizes = np.bincount(true_row, minlength=len(given))
    start = np.concatenate([[0], np.cumsum(sizes)])
    found, step = np.empty(len(one)), max(1, AT_ONCE // max(len(sought), 1))
    for first in range(0, len(one), step):
        rows, columns = row[first : first + step], column[first : first + step]
        scores = table[rows]
        own = scores[np.arange(len(rows)), columns]
        scores = np.where(np.isnan(scores), -np.inf, scores)
        above = (scores > own[:, None]).sum(1)
        level = (scores == own[:, None]).sum(1) - 1  # but itself
        # The true ones of each row are taken off again, a ragged list per edge.
        owner = np.repeat(np.arange(len(rows)), sizes[rows])
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(sizes[rows]) - sizes[rows], sizes[rows])
        listed = true_column[start[rows][owner] + offset]
        others = listed != columns[owner]
        owner, value = owner[others], scores[owner[others], listed[others]]
        above -= np.bincount(owner[value > own[owner]], minlength=len(rows))
        level -= np.bincount(owner[value == own[owner]], minlength=len(rows))
        found[first : first + step] = np.where(np.isnan(own), np.nan, 1 + above + level / 2)
    return found
