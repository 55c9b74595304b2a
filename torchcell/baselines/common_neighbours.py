"""Common neighbours: two nodes that share genes are linked."""

from __future__ import annotations

import numpy as np

from torchcell.baselines.link_baseline import LinkBaseline
from torchcell.baselines.typed_counts import Walks, by_rows
from torchcell.data.links import Links


class CommonNeighbours(LinkBaseline):
    """Number of walks of two steps between the ends, through nodes of one kind.

    Args:
        through: The kind between; where no such walk exists for a metaedge, any kind serves.
    """

    name = "common_neighbours"

    def __init__(self, through: str | None = "Gene") -> None:
        self.through = through

    def prepare(self, train: Links, val: Links) -> None:
        """Count walks, undamped."""
        self.walks = Walks(self.steps, damping=0.0)

    def fit_one(self, metaedge: str, train: Links, val: Links) -> list[tuple[str, ...]]:
        """The metapaths that are counted."""
        paths = [path for path in self.steps.metapaths(metaedge, 2) if len(path) > 1]
        return [path for path in paths if self.steps.ends[path[0]][1] == self.through] or paths

    def score(self, metaedge: str, fitted: list[tuple[str, ...]], source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See ``LinkBaseline``; 0 for all where the kinds have no neighbours in common."""
        score = np.zeros(len(source), dtype=np.float32)
        if not fitted:
            return score
        turned = [tuple(self.steps.back(step) for step in path[::-1]) for path in fitted]
        for reverse, at, start, number, end in by_rows(source, target):
            for _, walked in self.walks.between(turned if reverse else fitted, start, number, end):
                score[at] += walked
        return score
