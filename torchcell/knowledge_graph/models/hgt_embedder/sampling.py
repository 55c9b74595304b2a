"""What a training step draws: negatives, further edges, and the part of the graph that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from torchcell.graph.cell_graph import CSR
from torchcell.knowledge_graph.typed_graph import NeighborSampler, TypedGraph


class LinkNegatives(nn.Module):
    """Draws the other ends that an edge type's links are compared with, shared by all links of a step.

    A share of the draws is in proportion to the nodes' degree in that edge type (an end of a random edge), so that
    degree alone tells little; the others are uniform over the nodes of the end's type.

    Args:
        edges: Of each edge type the known edges, source and target node numbers int64 [E].
        ranges: Of each edge type the node numbers of its sources and its targets, ((first, last), (first, last)).
        symmetric: Codes of the edge types whose edges have no direction.
        n_nodes: N.
        matched: Share that is drawn by degree.
    """

    def __init__(
        self,
        edges: Sequence[tuple[Tensor, Tensor]],
        ranges: Sequence[tuple[tuple[int, int], tuple[int, int]]],
        symmetric: Sequence[int],
        n_nodes: int,
        matched: float | int = 0.5,
    ) -> None:
        super().__init__()
        self.ranges, self.n_nodes, self.matched = list(ranges), n_nodes, matched
        self.symmetric = frozenset(symmetric)
        self.n_edges = [len(source) for source, _ in edges]
        for code, (source, target) in enumerate(edges):
            if code in symmetric:
                source, target = torch.cat([source, target]), torch.cat([target, source])
            key, order = (source * n_nodes + target).sort()
            edges_of = {"source": source, "target": target, "key": key, "order": order}
            for name, tensor in edges_of.items():
                self.register_buffer(f"{name}{code}", tensor, persistent=False)

    def draw(self, code: int, end: int, count: int) -> Int[Tensor, " K"]:
        """Node numbers for one end of an edge type, 0 its source and 1 its target, int64 [K].

        Args:
            code: Of the edge type; without edges all draws are uniform.
            end: Which end is replaced.
            count: K; drawn with repetition, by torch's global generator.
        """
        ends = self.get_buffer(f"{('source', 'target')[end]}{code}")
        n_matched = round(self.matched * count) if len(ends) else 0
        chosen = ends[torch.randint(max(len(ends), 1), (n_matched,), device=ends.device)]
        first, last = self.ranges[code][end]
        return torch.cat([chosen, torch.randint(first, last, (count - n_matched,), device=ends.device)])

    def ends(self, code: int, number: Int[Tensor, " P"]) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
        """Source and target of edges of an edge type by their numbers [P]."""
        return self.get_buffer(f"source{code}")[number], self.get_buffer(f"target{code}")[number]

    def edge_number(
        self, code: int, source: Int[Tensor, "*shape"], target: Int[Tensor, "*shape"]
    ) -> Int[Tensor, "*shape"]:
        """Number of each pair among the edge type's edges, in either direction if it has none; -1: no edge."""
        keys, wanted = self.get_buffer(f"key{code}"), source * self.n_nodes + target
        if not len(keys):
            return torch.full_like(source, -1)
        at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(keys[at] == wanted, self.get_buffer(f"order{code}")[at] % self.n_edges[code], -1)

    def known(self, code: int, source: Int[Tensor, "*shape"], target: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Whether pairs are edges of the edge type, or one node twice."""
        return (self.edge_number(code, source, target) >= 0) | (source == target)


def draw_edges(
    n_edges: Sequence[int], size: int, balance: float | int, most: float | int, device: torch.device | None = None
) -> list[Int[Tensor, " P"]]:
    """Numbers of sampled edges of each edge type, none twice, by torch's global generator.

    Args:
        n_edges: Edges of each edge type.
        size: Edges in all, or fewer where ``most`` binds.
        balance: An edge type's share goes with (its edges) ** balance.
        most: Share of an edge type's edges that are drawn at most.
        device: Of the numbers.
    """
    share = [edges**balance if edges else 0.0 for edges in n_edges]
    whole = sum(share) or 1.0
    wanted = [min(round(size * part / whole), int(most * edges)) for part, edges in zip(share, n_edges, strict=True)]
    return [torch.randperm(edges, device=device)[:count] for edges, count in zip(n_edges, wanted, strict=True)]


class StepPart(NamedTuple):
    """The part of the message graph that a step reads, without the step's links.

    Attributes:
        csrs: A matrix a relation over the nodes of the part [R].
        bounds: Type k holds the nodes ``bounds[k]`` to ``bounds[k + 1]`` of the part [K + 1].
        node_M: Where the nodes of the part stand in the graph, int64 [M]; none: it is the whole graph.
        row_N: Row of each node of the graph in the part [N], meaningless for a node that was not sampled.
        whole: The matrices of the whole graph without the step's links [R].
    """

    csrs: list[CSR]
    bounds: Sequence[int]
    node_M: Tensor | None
    row_N: Tensor
    whole: list[CSR]


class StepGraph:
    """The message graph without the links of a step, whole or sampled around the nodes that the step reads.

    Args:
        graph: The message graph.
        fan_outs: Edges read into a node at each hop; none reads the whole graph.
    """

    def __init__(self, graph: TypedGraph, fan_outs: Sequence[int] | None) -> None:
        self.graph, self.fan_outs = graph, fan_outs
        self.sampler: NeighborSampler | None = None

    def without(self, code_P: Int[Tensor, " P"], number_P: Int[Tensor, " P"], node_n: Int[Tensor, " n"]) -> StepPart:
        """The graph without some edges.

        Args:
            code_P: Edge types of the edges that are left out [P].
            number_P: Their numbers [P]; they are left out in both directions.
            node_n: The nodes whose vectors are read.
        """
        weights, bounds = self.graph.weights_without(code_P, number_P), list(self.graph.bounds)
        whole = self.graph.csrs(weights)
        row_N = torch.arange(len(self.graph), device=node_n.device)
        if self.fan_outs is None:
            return StepPart(whole, bounds, None, row_N, whole)
        if self.sampler is None:  # made here and not before: now the graph is on its device
            self.sampler = NeighborSampler(self.graph)
        part = self.sampler.sample(node_n.unique(), self.fan_outs, weights=weights)
        row_N[part.node_M] = torch.arange(len(part.node_M), device=node_n.device)
        return StepPart(part.csrs, part.bounds, part.node_M, row_N, whole)
