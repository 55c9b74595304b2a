"""``MetapathFeatures``: counted and degree-weighted metapaths between the ends of pairs, and degrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from torchcell.knowledge_graph.baselines import CHUNK, SMOOTHING, OwnEdges, PathCounts, Steps, by_rows

LONGEST = 3
"""Steps of a metapath at most."""
MOST_OTHERS, MOST_SOURCES = 50_000, 1024
"""Other pairs drawn for a regression, and of how many sources; with GiG a chunk of sources takes a second."""


class MetapathFeatures:
    """Features of pairs of nodes on one graph.

    Args:
        steps: The graph.
        damping: Exponent of the degrees in degree-weighted paths.
    """

    def __init__(self, steps: Steps, damping: float) -> None:
        self.steps = steps
        self.counts = (PathCounts(steps, damping=0.0), PathCounts(steps, damping=damping))

    def paths(self, edge_type: str) -> list[tuple[str, ...]]:
        """All metapaths between the ends of an edge type, sorted."""
        return sorted(self.steps.metapaths(edge_type, LONGEST))

    def other_pairs(self, edge_type: str, wanted: int, rng: np.random.Generator) -> np.ndarray:
        """Pairs of the two node types that are no training edge, int64 [2, P]; of few sources, as each costs time."""
        first, last = (self.steps.size[node_type] for node_type in self.steps.ends[edge_type])
        wanted = min(wanted, MOST_OTHERS)
        sources = np.sort(rng.choice(first, min(first, MOST_SOURCES), replace=False))
        source = np.repeat(sources, -(-wanted // len(sources)))
        pairs = np.unique(np.stack([source, rng.integers(0, last, len(source))]), axis=1)
        edge = np.asarray(self.steps.into[edge_type][pairs[1], pairs[0]]).ravel() > 0
        itself = (pairs[0] == pairs[1]) & (self.steps.ends[edge_type][0] == self.steps.ends[edge_type][1])
        return pairs[:, ~edge & ~itself]

    def best_paths(
        self, edge_type: str, source: np.ndarray, target: np.ndarray, others: np.ndarray, most: int
    ) -> list[tuple[str, ...]]:
        """At most ``most`` metapaths, those whose counts separate some training edges from other pairs best."""
        from sklearn.metrics import roc_auc_score

        paths = self.paths(edge_type)
        if len(paths) <= most:
            return paths
        few = others[:, np.isin(others[0], np.unique(others[0])[:CHUNK])]
        undamped = self.counts[:1]
        counted = [
            self.without_own(edge_type, paths, source[:CHUNK], target[:CHUNK], undamped),
            self.between(paths, few[0], few[1], undamped),
        ]
        label = np.repeat([1, 0], [len(part) for part in counted])
        distance = np.array([abs(roc_auc_score(label, column) - 0.5) for column in np.concatenate(counted).T])
        return [paths[i] for i in np.sort(np.argsort(-distance, kind="stable")[:most])]

    def between(
        self,
        paths: list[tuple[str, ...]],
        source: np.ndarray,
        target: np.ndarray,
        weighed: Sequence[PathCounts] | None = None,
    ) -> np.ndarray:
        """Counted, then degree-weighted paths of pairs, float32 [P, 2 x paths]; or only those ``weighed`` so."""
        back, weighed = turned(paths, self.steps), weighed or self.counts
        out = np.zeros((len(source), len(weighed) * len(paths)), dtype=np.float32)
        for reverse, at, start, number, end in by_rows(source, target):
            ways = back if reverse else paths
            for k, counts in enumerate(weighed):
                for i, counted in counts.between(ways, start, number, end):
                    out[at, k * len(paths) + i] = counted
        return out

    def without_own(
        self,
        edge_type: str,
        paths: list[tuple[str, ...]],
        source: np.ndarray,
        target: np.ndarray,
        weighed: Sequence[PathCounts] | None = None,
    ) -> np.ndarray:
        """The same for training edges, each looked at as if it were not in the graph."""
        weighed = weighed or self.counts
        out = np.zeros((len(source), len(weighed) * len(paths)), dtype=np.float32)
        for low in range(0, len(source), CHUNK):
            part = slice(low, low + CHUNK)
            own = OwnEdges(edge_type, source[part], target[part])
            for k, counts in enumerate(weighed):
                for i, counted in counts.between(paths, own.source, np.arange(len(own.source)), own.target, own):
                    out[part, k * len(paths) + i] = counted
        return out

    def degrees(self, edge_type: str, source: np.ndarray, target: np.ndarray, own: int) -> np.ndarray:
        """Logarithms of the degrees of both ends in all their steps [P, D]; ``own`` edges are not counted."""
        columns = [
            np.log(self.steps.degree(step)[at] - own * (step == own_step) + SMOOTHING)
            for node_type, at, own_step in self.ends(edge_type, source, target)
            for step in self.steps.leaving(node_type)
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def ends(self, edge_type: str, source: np.ndarray, target: np.ndarray) -> Iterator[tuple[str, np.ndarray, str]]:
        """Node type and places of either end, and the step by which the edge type leaves it."""
        steps = edge_type, self.steps.back(edge_type)
        return zip(self.steps.ends[edge_type], (source, target), steps, strict=True)


def turned(paths: Sequence[tuple[str, ...]], steps: Steps) -> list[tuple[str, ...]]:
    """The same metapaths followed from their other end."""
    return [tuple(steps.back(step) for step in path[::-1]) for path in paths]
