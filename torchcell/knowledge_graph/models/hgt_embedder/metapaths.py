"""Log-odds of links from the metapaths between their ends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchcell.graph.cell_graph import CSR
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.typed_graph import TypedGraph
from torchcell.nn.sparse import multiply

SMOOTHING = 0.1
"""Added to a degree before its logarithm."""

GAIN = 8.0
"""g: a hundred steps at the rate of the other parameters hardly move a few weights; validation MRR .45 without, .50
with 4, and .54 at three times the rate and twice the epochs (Hetionet's CtD, metapaths alone)."""

Path = tuple[int, ...]
"""Numbers of the relations that a metapath follows, in order."""


def metapaths_between(relations: Sequence[tuple[int, int]], first: int, last: int, longest: int) -> list[Path]:
    """All metapaths between two node types of at most so many steps, sorted so that common beginnings stand together.

    Args:
        relations: Node types of source and target of each relation [R].
        first: The node type at the start.
        last: The node type at the end.
        longest: Steps at most.
    """
    found: list[Path] = []
    begun: list[tuple[Path, int]] = [((), first)]
    for _ in range(longest):
        begun = [
            ((*path, r), target) for path, at in begun for r, (source, target) in enumerate(relations) if source == at
        ]
        found += [path for path, at in begun if at == last]
    return sorted(found)


class MetapathScores(nn.Module):
    r"""A perceptron on the degree-damped paths between each two nodes by metapath, and on the degrees of both.

    .. math::
        x_{ijp} = \sum_{paths \, of \, p} \prod_{steps} w_{ab} (d_a d_b)^{-1/2}, \quad
        s_{ij} = g \, (w \cdot h_{ij} + v \cdot \mathrm{gelu}(W h_{ij} + c)), \quad
        h_{ij} = [\log(1 + x_{ij} / u), \log(d_i + .1), \log(d_j + .1)]

    for each metapath p of at most ``longest`` steps but the edge type itself (Himmelstein and Baranzini, PLoS
    Comput. Biol. 2015, 10.1371/journal.pcbi.1004259). Degrees and paths are those of the graph that is given, so no
    edge that was taken out of it is counted; they are data, and have no gradient. Damped sums hardly change when some
    edges are taken out, as counts do.

    Args:
        relations: Node types of source and target of each relation [R].
        sizes: Nodes of each type.
        own: The relation that is predicted, from source to target, and the one that reads it backwards (the same for
            an edge type without direction).
        csrs: The whole graph's matrices [R], from which the scale of each input is taken.
        longest: Steps of a metapath at most.
        hidden: Width of the perceptron.

    Shapes:
        csrs -> [A, B], nodes of the source type by nodes of the target type.

    Raises:
        InputError: Two node types that no metapath joins.
    """

    def __init__(
        self,
        relations: Sequence[tuple[int, int]],
        sizes: Sequence[int],
        own: tuple[int, int],
        csrs: Sequence[CSR],
        longest: int = 3,
        hidden: int = 16,
    ) -> None:
        super().__init__()
        self.relations, self.sizes, self.own = list(relations), list(sizes), own
        self.ends = self.relations[own[0]]
        # Paths start at the smaller node type: a column a start.
        self.turned = self.sizes[self.ends[1]] < self.sizes[self.ends[0]]
        first, last = self.ends[::-1] if self.turned else self.ends
        own_step = own[1] if self.turned else own[0]
        self.paths = [path for path in metapaths_between(self.relations, first, last, longest) if path != (own_step,)]
        if not self.paths:
            raise InputError(
                f"no metapath of at most {longest} steps joins the two node types; set model.decoder.metapath_pairs=0"
            )
        self.reads = [[r for r, (_, target) in enumerate(self.relations) if target == end] for end in self.ends]
        with torch.no_grad():
            paths_ABF, degrees = self.path_sums(csrs), self.degrees(csrs)
            unit_F = paths_ABF.mean((0, 1)).clamp(min=1e-12)
            inputs = [(paths_ABF / unit_F).log1p(), *degrees]
        self.unit: Tensor
        self.register_buffer("unit", unit_F, persistent=False)
        for number, each in enumerate(inputs):
            flat = each.flatten(0, -2)
            self.register_buffer(f"mean{number}", flat.mean(0), persistent=False)
            self.register_buffer(f"sd{number}", flat.std(0, correction=0).clamp(min=1e-6), persistent=False)
        widths = [each.shape[-1] for each in inputs]
        self.maps = nn.ModuleList(nn.Linear(width, hidden, bias=number == 0) for number, width in enumerate(widths))
        self.straight = nn.ModuleList(nn.Linear(width, 1, bias=False) for width in widths)
        self.read = nn.Linear(hidden, 1, bias=False)
        with torch.no_grad():
            self.read.weight /= GAIN
            for weight in self.straight.parameters():
                weight.zero_()

    def forward(self, csrs: Sequence[CSR]) -> Float[Tensor, "A B"]:
        """Log-odds of all pairs, but for a constant; of an edge type without direction the same both ways.

        Args:
            csrs: The matrices of all relations [R].
        """
        with torch.no_grad():
            inputs = [(self.path_sums(csrs) / self.unit).log1p(), *self.degrees(csrs)]
            inputs = [
                (each - self.get_buffer(f"mean{number}")) / self.get_buffer(f"sd{number}")
                for number, each in enumerate(inputs)
            ]
        with torch.autocast(inputs[0].device.type, enabled=False):  # rounded log-odds would tie in a ranking
            hidden_ABH = nn.functional.gelu(_joined(self.maps, inputs))
            score_AB = GAIN * (self.read(hidden_ABH) + _joined(self.straight, inputs))[..., 0]
        return (score_AB + score_AB.T) / 2 if self.own[0] == self.own[1] else score_AB

    def path_sums(self, csrs: Sequence[CSR]) -> Float[Tensor, "A B F"]:
        """Damped sums of the paths of each metapath, x [A, B, F]."""
        damped = [_damped(csr, self.sizes[source]) for csr, (source, _) in zip(csrs, self.relations, strict=True)]
        first, last = self.ends[::-1] if self.turned else self.ends
        out = damped[0].weight.new_empty(len(self.paths), self.sizes[last], self.sizes[first])
        for number, mass in self._along(damped, out.new_zeros(self.sizes[first]).diag()):
            out[number] = mass
        return out.permute(1, 2, 0) if self.turned else out.permute(2, 1, 0)

    def degrees(self, csrs: Sequence[CSR]) -> list[Float[Tensor, "n R"]]:
        """Logarithms of the degrees of the sources and of the targets, a column a relation."""
        return [torch.stack([(_into(csrs[r]) + SMOOTHING).log() for r in reads], dim=1) for reads in self.reads]

    def _along(self, csrs: Sequence[CSR], start: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Number of each path and the mass at its end; common beginnings are followed once."""
        begun: list[tuple[Path, Tensor]] = [((), start.fill_diagonal_(1))]
        for number, path in enumerate(self.paths):
            while path[: len(begun[-1][0])] != begun[-1][0]:
                begun.pop()
            for r in path[len(begun[-1][0]) :]:
                begun.append(((*begun[-1][0], r), multiply(csrs[r], begun[-1][1])))
            yield number, begun[-1][1]

    def extra_repr(self) -> str:
        """Number of metapaths."""
        return f"metapaths={len(self.paths)}"


def _joined(maps: nn.ModuleList, inputs: Sequence[Tensor]) -> Float[Tensor, "A B H"]:
    """The sum of what each map makes of its input: of pairs, of sources, of targets."""
    pairs, source, target = (read(each) for read, each in zip(list(maps), inputs, strict=True))
    return pairs + source[:, None] + target[None]


def _into(csr: CSR) -> Float[Tensor, " n"]:
    """Summed weight of the edges into each row."""
    total_E = torch.cat([csr.weight.new_zeros(1), csr.weight.cumsum(0)])
    return total_E[csr.indptr.long()].diff()


def _damped(csr: CSR, n_columns: int) -> CSR:
    """The matrix with each edge divided by the root of both its ends' degrees."""
    size = csr.indptr.diff()
    row_n = _into(csr).clamp(min=1) ** -0.5
    column_m = csr.weight.new_zeros(n_columns).index_add(0, csr.indices, csr.weight).clamp(min=1) ** -0.5
    row_E = row_n.repeat_interleave(size, output_size=len(csr.indices))
    return CSR(csr.indptr, csr.indices, csr.weight * row_E * column_m[csr.indices])


class MetapathTable(NamedTuple):
    """Log-odds of one edge type from metapaths.

    Attributes:
        score_AB: Of each source with each target [A, B].
        first_source: Node number of the first source.
        first_target: Node number of the first target.
    """

    score_AB: Tensor
    first_source: int
    first_target: int


def metapath_scores(
    graph: TypedGraph, supervised: Sequence[str], most: int, longest: int, hidden: int
) -> nn.ModuleDict:
    """``MetapathScores`` of the supervised edge types of at most so many pairs of nodes, by the edge type's number.

    Args:
        graph: The message graph.
        supervised: Names of edge types.
        most: Pairs of nodes at most.
        longest: Steps of a metapath at most.
        hidden: Width of the perceptron.
    """
    relations = [(relation.source, relation.target) for relation in graph.relations]
    sizes, scores = np.diff(graph.bounds).tolist(), nn.ModuleDict()
    for name in supervised:
        if math.prod(sizes[node_type] for node_type in graph.ends[name]) <= most:
            own = [number for number, relation in enumerate(graph.relations) if relation.edge_type == name]
            one = MetapathScores(relations, sizes, (own[0], own[-1]), graph.csrs(), longest, hidden)
            scores[str(graph.edge_types.index(name))] = one
    return scores
