"""Batches of edges with degree-matched and uniform negatives, over all metaedges of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchcell.baselines.typed_counts import Steps
from torchcell.data.knowledge_graph import KnowledgeGraph


@dataclass(frozen=True, eq=False)
class Draw:
    """B candidates of any metaedges.

    Attributes:
        metaedge: Number of the metaedge, int64 [B].
        ends: Positions of both ends among all nodes, int64 [2, B].
        slots: The ends' places in a table with one row a metaedge, side and node, int64 [2, B].
        label: 1 an edge, 0 a negative, float32 [B].
    """

    metaedge: Tensor
    ends: Tensor
    slots: Tensor
    label: Tensor


class EdgeDraws:
    """Draws batches from the edges of a graph.

    Args:
        graph: Edges that may be seen.
        steps: The same as steps.
        generator: Rules what is drawn.

    Attributes:
        metaedges: Names in the order of their numbers.
        n_slots: Rows of a table over metaedge, side and node; both sides of a symmetric metaedge share theirs.
        symmetric: The metaedges whose two directions mean the same, bool [metaedges].
        degree: Edges at each slot, float32 [n_slots].
    """

    def __init__(self, graph: KnowledgeGraph, steps: Steps, generator: torch.Generator) -> None:
        self.generator, self.n_nodes = generator, len(graph.node_id)
        self.metaedges = [step for step in steps.ends if not step.endswith("<")]
        self.members = {kind: torch.from_numpy(np.flatnonzero(graph.node_kind == kind)) for kind in graph.kinds}
        kinds, edges, first, size, degrees = [], [], [], [], []
        n_slots = 0
        for metaedge in self.metaedges:
            held = graph.metaedge == metaedge
            edges.append(np.stack([graph.source_index[held], graph.target_index[held]]))
            kinds.append(steps.ends[metaedge])
            sides = [metaedge] if steps.back(metaedge) == metaedge else [metaedge, steps.back(metaedge)]
            degrees += [steps.degree(side) for side in sides]
            lengths = [len(degree) for degree in degrees[-len(sides) :]]
            first.append([n_slots, n_slots + (lengths[0] if len(sides) == 2 else 0)])
            size.append([lengths[0], lengths[-1]])
            n_slots += sum(lengths)
        self.kinds, self.n_slots = kinds, n_slots
        self.count = torch.tensor([of_one.shape[1] for of_one in edges])
        self.start = self.count.cumsum(0) - self.count
        self.edges = torch.from_numpy(np.concatenate(edges, axis=1))
        self.first, self.size = torch.tensor(first).T, torch.tensor(size).T
        self.symmetric = self.first[0] == self.first[1]
        self.degree = torch.from_numpy(np.concatenate(degrees)).float()
        self.local = torch.from_numpy(steps.local)
        # All nodes of a kind in one stretch, so that a uniform draw is an offset.
        self.stretch = torch.cat([self.members[kind] for kind in graph.kinds])
        lengths_of = [len(self.members[kind]) for kind in graph.kinds]
        begin = dict(zip(graph.kinds, np.cumsum([0, *lengths_of[:-1]]).tolist(), strict=True))
        self.begin = torch.tensor([[begin[kind] for kind in pair] for pair in kinds]).T

    def weights(self, supervised: list[str], share: float) -> Tensor:
        """Chance of each metaedge in a draw: ``share`` for the supervised ones alike, the rest by number of edges."""
        weight = (1 - share) * self.count / self.count.sum()
        at = [i for i, name in enumerate(self.metaedges) if name in supervised and self.count[i] > 0]
        weight[at] += share / max(len(at), 1)
        return weight

    def draw(self, n_edges: int, negatives: int, weight: Tensor) -> Draw:
        """``n_edges`` edges, then ``negatives`` uniform and as many degree-matched pairs for each of them.

        A negative is not checked against the edges: few are.
        """
        metaedge = torch.multinomial(weight, n_edges, replacement=True, generator=self.generator)
        of_negatives = metaedge.repeat(negatives)
        uniform = self.stretch[self.begin[:, of_negatives] + self._below(self.size[:, of_negatives])]
        # Both ends of edges, drawn apart: each in proportion to its degree.
        matched = torch.stack([self._some_edges(of_negatives)[0], self._some_edges(of_negatives)[1]])
        ends = torch.cat([self._some_edges(metaedge), uniform, matched], dim=1)
        label = torch.zeros(ends.shape[1])
        label[:n_edges] = 1
        return self._of(torch.cat([metaedge, of_negatives, of_negatives]), ends, label)

    def pairs(self, metaedge: str, source: np.ndarray, target: np.ndarray) -> Draw:
        """Candidates of one metaedge, their ends given as places within their kinds [B]."""
        number = self.metaedges.index(metaedge)
        ends = [self.members[kind][end] for kind, end in zip(self.kinds[number], (source, target), strict=True)]
        return self._of(torch.full((len(source),), number), torch.stack(ends), torch.zeros(len(source)))

    def log_density(self, draw: Draw) -> Tensor:
        """Log of the negatives' density over that of uniform pairs [B]: half uniform, half in proportion to degree."""
        lift = self.degree[draw.slots] * self.size[:, draw.metaedge]
        total = torch.where(self.symmetric, 2, 1) * self.count
        return (0.5 + 0.5 * (lift / total[draw.metaedge]).prod(0)).log()

    def _of(self, metaedge: Tensor, ends: Tensor, label: Tensor) -> Draw:
        return Draw(metaedge, ends, self.first[:, metaedge] + self.local[ends], label)

    def _some_edges(self, metaedge: Tensor) -> Tensor:
        """An edge of each metaedge, its ends [2, B]; of a symmetric one in either direction."""
        ends = self.edges[:, self.start[metaedge] + self._below(self.count[metaedge])]
        turned = self.symmetric[metaedge] & (torch.rand(len(metaedge), generator=self.generator) < 0.5)
        return torch.where(turned, ends.flip(0), ends)

    def _below(self, limit: Tensor) -> Tensor:
        """Uniform integers below each limit."""
        return (torch.rand(limit.shape, generator=self.generator, dtype=torch.float64) * limit).long()
