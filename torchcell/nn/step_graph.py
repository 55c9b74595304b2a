"""The message graph of one training step: without the links that the step is asked about, whole or sampled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchcell.graph.cell_graph import CSR
from torchcell.graph.neighbour_sampler import NeighbourSampler
from torchcell.graph.typed_graph import TypedGraph
from torchcell.nn.typed_encoder import TypedEncoder


def draw_edges(
    n_edges: Sequence[int], size: int, balance: float | int, most: float | int, device: torch.device | None = None
) -> list[Int[Tensor, " P"]]:
    """Numbers of sampled edges of each metaedge, none twice, by torch's global generator.

    Args:
        n_edges: Edges of each metaedge.
        size: Edges in all, or fewer where ``most`` binds.
        balance: A metaedge's share goes with (its edges) ** balance.
        most: Share of a metaedge's edges that are drawn at most.
        device: Of the numbers.
    """
    share = [edges**balance if edges else 0.0 for edges in n_edges]
    whole = sum(share) or 1.0
    wanted = [min(round(size * part / whole), int(most * edges)) for part, edges in zip(share, n_edges, strict=True)]
    return [torch.randperm(edges, device=device)[:count] for edges, count in zip(n_edges, wanted, strict=True)]


class StepGraph:
    """Vectors of the nodes of a step, from messages that none of its links takes part in.

    Args:
        graph: The message graph.
        fan_outs: Edges read into a node at each hop; none reads the whole graph.
    """

    def __init__(self, graph: TypedGraph, fan_outs: Sequence[int] | None) -> None:
        self.graph, self.fan_outs = graph, fan_outs
        self.sampler: NeighbourSampler | None = None

    def encode(
        self, encoder: TypedEncoder, code_P: Int[Tensor, " P"], number_P: Int[Tensor, " P"], node_n: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "M D"], Sequence[int], Int[Tensor, " N"], list[CSR]]:
        """Encode the graph without some edges.

        Args:
            encoder: Makes the vectors.
            code_P: Metaedges of the edges that are left out [P].
            number_P: Their numbers [P]; they are left out in both directions.
            node_n: The nodes whose vectors are read.

        Returns:
            z_MD, vectors of all nodes or of the sampled ones; their bounds by kind; the row of each node of the graph
            in them [N], meaningless for a node that was not sampled; and the matrices of all relations, whole but for
            the edges that are left out [R].
        """
        weights, bounds = self.graph.weights_without(code_P, number_P), list(self.graph.bounds)
        csrs = self.graph.csrs(weights)
        degree_NR = encoder.degrees(csrs)
        row_N = torch.arange(len(self.graph), device=node_n.device)
        if self.fan_outs is None:
            return encoder(csrs, bounds, degree_NR), bounds, row_N, csrs
        if self.sampler is None:  # made here and not before: now the graph is on its device
            self.sampler = NeighbourSampler(self.graph)
        part = self.sampler.sample(node_n.unique(), self.fan_outs, weights=weights)
        row_N[part.node_M] = torch.arange(len(part.node_M), device=node_n.device)
        degree_MR = None if degree_NR is None else degree_NR[part.node_M]
        return encoder(part.csrs, part.bounds, degree_MR, part.node_M), part.bounds, row_N, csrs
