"""Negatives that many links share: nodes drawn by degree and at random, and which pairs are known links."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn


class LinkNegatives(nn.Module):
    """Draws the other ends that a metaedge's links are told from, shared by all links of a step.

    A share of the draws is in proportion to the nodes' degree in that metaedge (an end of a random edge), so that
    degree alone tells little; the others are uniform over the nodes of the end's kind.

    Args:
        edges: Of each metaedge the known edges, source and target node numbers int64 [E].
        ranges: Of each metaedge the node numbers of its sources and its targets, ((first, last), (first, last)).
        symmetric: Codes of the metaedges whose edges have no direction.
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
            held = {"source": source, "target": target, "key": key, "order": order}
            for name, tensor in held.items():
                self.register_buffer(f"{name}{code}", tensor, persistent=False)

    def draw(self, code: int, end: int, count: int) -> Int[Tensor, " K"]:
        """Node numbers for one end of a metaedge, 0 its source and 1 its target, int64 [K].

        Args:
            code: Of the metaedge; without edges all draws are uniform.
            end: Which end is replaced.
            count: K; drawn with repetition, by torch's global generator.
        """
        ends = self.get_buffer(f"{('source', 'target')[end]}{code}")
        n_matched = round(self.matched * count) if len(ends) else 0
        chosen = ends[torch.randint(max(len(ends), 1), (n_matched,), device=ends.device)]
        first, last = self.ranges[code][end]
        return torch.cat([chosen, torch.randint(first, last, (count - n_matched,), device=ends.device)])

    def ends(self, code: int, number: Int[Tensor, " P"]) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
        """Source and target of edges of a metaedge by their numbers [P]."""
        return self.get_buffer(f"source{code}")[number], self.get_buffer(f"target{code}")[number]

    def edge_number(
        self, code: int, source: Int[Tensor, "*shape"], target: Int[Tensor, "*shape"]
    ) -> Int[Tensor, "*shape"]:
        """Number of each pair among the metaedge's edges, in either direction if it has none; -1: no edge."""
        keys, asked = self.get_buffer(f"key{code}"), source * self.n_nodes + target
        if not len(keys):
            return torch.full_like(source, -1)
        at = torch.searchsorted(keys, asked).clamp(max=len(keys) - 1)
        return torch.where(keys[at] == asked, self.get_buffer(f"order{code}")[at] % self.n_edges[code], -1)

    def known(self, code: int, source: Int[Tensor, "*shape"], target: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Whether pairs are edges of the metaedge, or one node twice."""
        return (self.edge_number(code, source, target) >= 0) | (source == target)
