"""``LinkExperts``: what a graph says of a pair of nodes, one source each, as named columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from torchcell.knowledge_graph.baselines import Steps, profile, votes
from torchcell.knowledge_graph.metapath_features import MetapathFeatures

POWERS = (1.0, 2.0)
"""Of the cosine between nodes that weighs their votes."""
FEW = 5_000
"""Nodes of a type up to which each step has votes of its own; above, all steps together."""
REFERENCE, OF_SOURCES = 5_000, 256
"""Pairs whose mean is the unit of a column, and of how many sources."""
ROWS = 65_536
"""Pairs whose columns are made at once: 100 of them take 26 MB."""


class LinkExperts:
    """Columns of pairs for one edge type, on one graph.

    ``paths``: the logs of counted and of degree-weighted metapaths, each in units of its mean over random pairs.
    ``sources like by STEP``: votes of the sources that share neighbors of that step with the pair's source, for the
    target; ``targets like by STEP`` likewise. ``degrees``: log degrees of both ends in all their steps. Where the edge
    type has no direction, the mean of a pair's columns and those of the pair turned round.

    Args:
        steps: The graph.
        edge_type: Of the pairs.
        paths: Metapaths that count.
        damping: Exponent of the degrees in degree-weighted paths.
        unit: Of the columns but the degrees; none: found on this graph.
    """

    def __init__(
        self,
        steps: Steps,
        edge_type: str,
        paths: Sequence[tuple[str, ...]],
        damping: float,
        unit: np.ndarray | None = None,
    ) -> None:
        self.steps, self.edge_type, self.paths = steps, edge_type, list(paths)
        self.features = MetapathFeatures(steps, damping)
        self.symmetric = steps.back(edge_type) == edge_type
        self.likeness = list(self._profiles())
        if unit is None:
            first, last = (steps.size[node_type] for node_type in steps.ends[edge_type])
            rng = np.random.default_rng(0)
            some = rng.choice(first, min(first, OF_SOURCES), replace=False)
            source = np.repeat(some, -(-REFERENCE // len(some)))
            unit = np.maximum(self._counted(source, rng.integers(0, last, len(source))).mean(0), 1e-12)
        self.unit = unit

    @property
    def names(self) -> list[str]:
        """``source: what`` of each column."""
        words = [".".join(path) for path in self.paths]
        named = [f"paths {word}: {how}" for how in ("counted", "weighed by degree") for word in words]
        named += [f"{source}: power {power:g}" for source, *_ in self.likeness for power in POWERS]
        ends = zip(("source", "target"), self.steps.ends[self.edge_type], strict=True)
        return named + [f"degrees: {end} {step}" for end, node_type in ends for step in self.steps.leaving(node_type)]

    def columns(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Columns of pairs, float32 [P, F]; the ends are places within their node types."""
        found = self._one_way(source, target)
        return (found + self._one_way(target, source)) / 2 if self.symmetric else found

    def _one_way(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        degrees = self.features.degrees(self.edge_type, source, target, own=0)
        return np.concatenate([np.log1p(self._counted(source, target) / self.unit), degrees], axis=1).astype(np.float32)

    def _counted(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Paths and votes of pairs."""
        found = [self.features.between(self.paths, source, target)] if self.paths else []
        for _, step, nodes in self.likeness:
            ends = (source, target) if step == self.edge_type else (target, source)
            found.append(votes(self.steps, step, nodes, POWERS, *ends))
        return np.concatenate(found, axis=1)

    def _profiles(self) -> Iterator[tuple[str, str, sp.csr_matrix]]:
        """Name of the source, the step whose votes these are, and the profiles of the nodes that vote."""
        sides = (("sources", self.edge_type), ("targets", self.steps.back(self.edge_type)))
        for side, step in sides[: 1 if self.symmetric else 2]:
            node_type = self.steps.ends[step][0]
            leaving = self.steps.leaving(node_type)
            if self.steps.size[node_type] <= FEW and len(leaving) > 1:
                for one in leaving:
                    yield f"{side} like by {one}", step, profile(self.steps, [one])
            yield f"{side} like by all", step, profile(self.steps, leaving)


def blocks(source: np.ndarray, target: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of pairs in blocks of few sources, or of few targets where these are fewer."""
    fewer = source if len(np.unique(source)) <= len(np.unique(target)) else target
    order = np.argsort(fewer, kind="stable")
    for low in range(0, len(order), ROWS):
        yield order[low : low + ROWS]
