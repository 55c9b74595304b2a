"""A part of a knowledge graph around some nodes: a few incoming edges of each, drawn over all relations together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from torchcell.graph.cell_graph import CSR
from torchcell.graph.ranges import expand
from torchcell.graph.typed_graph import TypedGraph


class SampledGraph(NamedTuple):
    """A part of a typed graph, its nodes in the graph's own order and so kind by kind.

    Attributes:
        node_M: Where its nodes stand in the graph, int64 [M], ascending.
        bounds: Kind k holds the nodes ``bounds[k]`` to ``bounds[k + 1]`` of ``node_M`` [K + 1].
        csrs: A matrix a relation [R], over these nodes.
        seed_position_S: Where the seeds stand in ``node_M``, int64 [S].
    """

    node_M: Tensor
    bounds: list[int]
    csrs: list[CSR]
    seed_position_S: Tensor


class NeighbourSampler(nn.Module):
    """Draw the edges into nodes, hop by hop, without a loop over nodes.

    All relations' entries stand in one list, relation by relation; of each node it is known where the entries that
    enter it are, so a draw is ``start + floor(rand x degree)``. As many draws a node as the fan-out, with replacement;
    what is drawn twice counts once, so a node of few edges more than the fan-out keeps fewer. A node with no more edges
    than the fan-out keeps all: a fan-out above every degree is the whole neighbourhood.

    Args:
        graph: The graph; 16 bytes an entry are held beside it.
    """

    def __init__(self, graph: TypedGraph) -> None:
        super().__init__()
        self.bounds, self.relations = graph.bounds, graph.relations
        sources, targets, self.offsets = [], [], [0]
        for csr, relation in zip(graph.csrs(), graph.relations, strict=True):
            rows = torch.arange(len(csr.indptr) - 1, device=csr.indptr.device)
            row = torch.repeat_interleave(rows, csr.indptr.diff(), output_size=len(csr.indices))
            sources.append(csr.indices + graph.bounds[relation.source])
            targets.append(row.int() + graph.bounds[relation.target])
            self.offsets.append(self.offsets[-1] + len(row))
        target_E = torch.cat(targets)
        count_N = torch.bincount(target_E, minlength=len(graph))
        buffers = {
            "source_E": torch.cat(sources),  # of each entry, among all nodes
            "target_E": target_E,
            "into_E": target_E.argsort(stable=True).int(),  # the entries, node after node
            "start_P": torch.cat([count_N.new_zeros(1), count_N.cumsum(0)]),  # into_E[start[i]:start[i + 1]] enter i
        }
        self.source_E: Tensor
        self.target_E: Tensor
        self.into_E: Tensor
        self.start_P: Tensor
        for name, values in buffers.items():
            self.register_buffer(name, values, persistent=False)

    def sample(
        self,
        seed_S: Int[Tensor, " S"],
        fan_outs: Sequence[int],
        generator: torch.Generator | None = None,
        weights: Sequence[Tensor] | None = None,
    ) -> SampledGraph:
        """The part around the seeds.

        Args:
            seed_S: Positions in the graph [S]; may repeat.
            fan_outs: Most edges into a node that is first met so many hops from the seeds.
            generator: By default torch's global one.
            weights: Of the entries of each relation, as ``TypedGraph.weights_without`` gives; by default 1.
        """
        n_nodes = len(self.start_P) - 1
        known_N = torch.zeros(n_nodes, dtype=torch.bool, device=seed_S.device)
        taken_E = torch.zeros(len(self.source_E), dtype=torch.bool, device=seed_S.device)
        known_N[seed_S] = True
        fresh = known_N.nonzero()[:, 0]
        for fan_out in fan_outs:
            entry = self._draw(fresh, fan_out, generator)
            taken_E[entry] = True
            met_N = torch.zeros_like(known_N)
            met_N[self.source_E[entry]] = True
            fresh = (met_N & ~known_N).nonzero()[:, 0]
            known_N |= met_N
        return self._part(known_N, taken_E.nonzero()[:, 0], seed_S, weights)

    def _draw(self, node_C: Tensor, fan_out: int, generator: torch.Generator | None) -> Tensor:
        """Entries into each node: all of them, or ``fan_out`` draws."""
        start_C = self.start_P[node_C]
        degree_C = self.start_P[node_C + 1] - start_C
        few = degree_C <= fan_out
        whole, _ = expand(start_C[few], degree_C[few])
        start, degree = start_C[~few, None], degree_C[~few, None]
        # Float64, as a float32 below 1 times a degree may round up to the degree.
        chance = torch.rand(len(start), fan_out, dtype=torch.float64, device=start.device, generator=generator)
        drawn = (start + (chance * degree).long()).flatten()
        return self.into_E.index_select(0, torch.cat([whole, drawn])).long()

    def _part(self, known_N: Tensor, entry: Tensor, seed_S: Tensor, weights: Sequence[Tensor] | None) -> SampledGraph:
        """Relabel the nodes met and the entries taken, which are in order of relation and row."""
        place_P = torch.cat([known_N.new_zeros(1, dtype=torch.long), known_N.cumsum(0)])
        bounds = place_P[list(self.bounds)].tolist()
        cuts = torch.searchsorted(entry, torch.tensor(self.offsets, device=entry.device)).tolist()
        source, target = (place_P.index_select(0, end.index_select(0, entry)) for end in (self.source_E, self.target_E))
        csrs = []
        for number, relation in enumerate(self.relations):
            part, first, last = slice(*cuts[number : number + 2]), *bounds[relation.target : relation.target + 2]
            size = torch.bincount(target[part] - first, minlength=last - first)
            indptr = torch.cat([size.new_zeros(1), size.cumsum(0)]).int()
            weight = torch.ones(part.stop - part.start, device=entry.device)
            if weights is not None:
                weight = weights[number].index_select(0, entry[part] - self.offsets[number])
            csrs.append(CSR(indptr, (source[part] - bounds[relation.source]).int(), weight))
        return SampledGraph(known_N.nonzero()[:, 0], bounds, csrs, place_P[seed_S])
