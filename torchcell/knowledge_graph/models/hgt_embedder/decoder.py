"""Scores of candidate edges: DistMult, metapaths, ranks among negatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from torchcell.graph.cell_graph import CSR
from torchcell.io.errors import InputError
from torchcell.nn.sparse import full_precision, multiply


class DistMult(nn.Module):
    r"""Score of the links (source i, edge type m, target j); Yang et al., ICLR 2015, arXiv:1412.6575.

    .. math::
        s_{imj} = \sum_d w_{md} z_{id} z_{jd} / \sqrt{D} + c_m + b^{source}_{mi} + b^{target}_{mj}

    The product says the same of both directions. A directed edge type within one node type, e.g. ``Gr>G``, also has
    an antisymmetric part, the imaginary one of ComplEx (Trouillon et al., ICML 2016): with the halves z = [a, b],
    sum_d v_md (a_id b_jd - b_id a_jd) / sqrt(D). Other edge types join two node types, whose vectors differ anyway.

    Args:
        features: D, even if any edge type is ``directed``.
        n_edge_types: Edge types.
        n_nodes: N, rows of the biases; 0 leaves the biases out.
        directed: Codes of the edge types with an antisymmetric part.
        symmetric: Codes of the edge types without direction, whose two ends share one bias a node.

    Shapes:
        source_PD, target_PD [P, D], and the edge type and node numbers [P] -> [P].
    """

    def __init__(
        self,
        features: int,
        n_edge_types: int,
        n_nodes: int = 0,
        directed: Sequence[int] = (),
        symmetric: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if directed and features % 2:
            raise InputError(f"{features} features: directed edge types need an even number")
        self.features, self.n_edge_types, self.n_nodes = features, n_edge_types, n_nodes
        self.weight = nn.Parameter(torch.empty(n_edge_types, features))
        self.turn = nn.Parameter(torch.empty(len(directed), features // 2)) if directed else None
        row = torch.full((n_edge_types,), -1)
        row[list(directed)] = torch.arange(len(directed))
        self.turn_row: Tensor
        self.register_buffer("turn_row", row, persistent=False)
        self.bias = nn.Parameter(torch.zeros(n_edge_types))
        # One table an edge type and end, so that a node's bias for one relation says nothing of another.
        self.node_bias = nn.Parameter(torch.zeros(2, n_edge_types, n_nodes)) if n_nodes else None
        self.target_end: Tensor
        end = torch.ones(n_edge_types, dtype=torch.int64)
        end[list(symmetric)] = 0
        self.register_buffer("target_end", end, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights near 1, so that alike nodes attract at the start; no turn, no biases."""
        nn.init.normal_(self.weight, 1.0, 0.1)
        nn.init.zeros_(self.bias)
        for zero in (self.turn, self.node_bias):
            if zero is not None:
                nn.init.zeros_(zero)

    def forward(
        self,
        source_PD: Float[Tensor, "P D"],
        target_PD: Float[Tensor, "P D"],
        edge_type_P: Int[Tensor, " P"],
        source_P: Int[Tensor, " P"],
        target_P: Int[Tensor, " P"],
    ) -> Float[Tensor, " P"]:
        """Log-odds of P links.

        Args:
            source_PD: Vectors of the sources [P, D].
            target_PD: Vectors of the targets [P, D].
            edge_type_P: Codes of the edge types [P].
            source_P: Node numbers of the sources, for the biases [P].
            target_P: Node numbers of the targets [P].

        Returns:
            [P].
        """
        query_PD = self.query(source_PD, edge_type_P)
        score_P = (query_PD * target_PD).sum(-1)
        return (
            score_P
            + self.offset(edge_type_P, source_P, 0)
            + self.offset(edge_type_P, target_P, 1)
            + self.bias[edge_type_P]
        )

    def query(self, source_PD: Float[Tensor, "P D"], edge_type_P: Int[Tensor, " P"]) -> Float[Tensor, "P D"]:
        """What a target's vector is multiplied with, so that many targets cost one matrix product [P, D]."""
        query_PD = source_PD * self.weight[edge_type_P]
        if self.turn is not None:
            row_P = self.turn_row[edge_type_P]
            turn_PH = self.turn[row_P.clamp(min=0)] * (row_P >= 0)[:, None]
            a_PH, b_PH = source_PD.chunk(2, dim=-1)
            query_PD = query_PD + torch.cat([-turn_PH * b_PH, turn_PH * a_PH], dim=-1)
        return query_PD * self.features**-0.5

    def grid(
        self,
        source_PD: Float[Tensor, "P D"],
        target_KD: Float[Tensor, "K D"],
        code: int,
        source_P: Int[Tensor, " P"],
        target_K: Int[Tensor, " K"],
    ) -> Float[Tensor, "P K"]:
        """Log-odds of one edge type between each of P sources and each of K targets [P, K]; see ``forward``."""
        code_P, code_K = torch.full_like(source_P, code), torch.full_like(target_K, code)
        with torch.autocast(source_PD.device.type, enabled=False):  # rounded log-odds would tie in a ranking
            score_PK = self.query(full_precision(source_PD), code_P) @ full_precision(target_KD).T
        offset_PK = self.offset(code_P, source_P, 0)[:, None] + self.offset(code_K, target_K, 1)
        return score_PK + offset_PK + self.bias[code]

    def offset(self, edge_type_P: Int[Tensor, " P"], node_P: Int[Tensor, " P"], end: int) -> Tensor:
        """Biases of nodes at one end, 0 the source and 1 the target [P]; zeros without biases."""
        if self.node_bias is None:
            return self.bias.new_zeros(len(node_P))
        table_P = self.target_end[edge_type_P] * end
        return self.node_bias[table_P, edge_type_P, node_P]

    def extra_repr(self) -> str:
        """Width, edge types, and whether nodes have biases."""
        return f"{self.features}, edge_types={self.n_edge_types}, node_biases={self.node_bias is not None}"


class LinkNegatives(nn.Module):
    """Draws the other ends that an edge type's links are told from, shared by all links of a step.

    A share of the draws is in proportion to the nodes' degree in that edge type (an end of a random edge), so that
    degree alone tells little; the others are uniform over the nodes of the end's node type.

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
            held = {"source": source, "target": target, "key": key, "order": order}
            for name, tensor in held.items():
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
        keys, asked = self.get_buffer(f"key{code}"), source * self.n_nodes + target
        if not len(keys):
            return torch.full_like(source, -1)
        at = torch.searchsorted(keys, asked).clamp(max=len(keys) - 1)
        return torch.where(keys[at] == asked, self.get_buffer(f"order{code}")[at] % self.n_edges[code], -1)

    def known(self, code: int, source: Int[Tensor, "*shape"], target: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Whether pairs are edges of the edge type, or one node twice."""
        return (self.edge_number(code, source, target) >= 0) | (source == target)


class MetapathTable(NamedTuple):
    """Log-odds of one edge type from walks.

    Attributes:
        score_AB: Of each source with each target [A, B].
        first_source: Node number of the first source.
        first_target: Node number of the first target.
    """

    score_AB: Tensor
    first_source: int
    first_target: int


class LinkScores:
    """The sum of both, for a list of links or for a grid of them; calls are those of ``DistMult``.

    Args:
        decoder: Reads vectors; none: walks alone are told.
        walks: Code of an edge type -> its table; others have none.
        weight: Any parameter: of its place and type is the 0 of an edge type without a table.
    """

    def __init__(self, decoder: DistMult | None, walks: Mapping[int, MetapathTable], weight: Tensor) -> None:
        self.decoder, self.walks, self.weight = decoder, walks, weight

    def __call__(
        self,
        source_PD: Float[Tensor, "P D"],
        target_PD: Float[Tensor, "P D"],
        edge_type_P: Int[Tensor, " P"],
        source_P: Int[Tensor, " P"],
        target_P: Int[Tensor, " P"],
    ) -> Float[Tensor, " P"]:
        """Log-odds of P links [P]; see ``DistMult.forward``."""
        score_P = self.weight.new_zeros(len(source_P))
        if self.decoder is not None:
            score_P = self.decoder(source_PD, target_PD, edge_type_P, source_P, target_P)
        for code, (score_AB, first_source, first_target) in self.walks.items():
            at = (edge_type_P == code).nonzero()[:, 0]
            walk_p = score_AB[source_P[at] - first_source, target_P[at] - first_target]
            score_P = score_P.index_add(0, at, walk_p.to(score_P.dtype))
        return score_P

    def grid(
        self,
        source_PD: Float[Tensor, "P D"],
        target_KD: Float[Tensor, "K D"],
        code: int,
        source_P: Int[Tensor, " P"],
        target_K: Int[Tensor, " K"],
    ) -> Float[Tensor, "P K"]:
        """Log-odds of one edge type between each of P sources and each of K targets [P, K]."""
        score_PK = self.weight.new_zeros(len(source_P), len(target_K))
        if self.decoder is not None:
            score_PK = self.decoder.grid(source_PD, target_KD, code, source_P, target_K)
        if code not in self.walks:
            return score_PK
        score_AB, first_source, first_target = self.walks[code]
        return score_PK + score_AB.index_select(0, source_P - first_source).index_select(1, target_K - first_target)


@torch.no_grad()
def link_ranks(
    z_ND: Float[Tensor, "N D"],
    scores: LinkScores,
    known: LinkNegatives,
    code: int,
    source_P: Int[Tensor, " P"],
    target_P: Int[Tensor, " P"],
) -> Float[Tensor, "P 2"]:
    """Rank of each target given the source, and of each source given the target; 1 is best, ties count half.

    Args:
        z_ND: Vectors of all nodes [N, D].
        scores: Reads them.
        known: Links of the message graph, which leave the lists, as the other given links do.
        code: Of the edge type.
        source_P: Node numbers [P].
        target_P: Node numbers [P].
    """
    (first, last), (other_first, other_last) = known.ranges[code]
    source_A = torch.arange(first, last, device=source_P.device)
    target_B = torch.arange(other_first, other_last, device=source_P.device)
    tails_PB = scores.grid(z_ND[source_P], z_ND[target_B], code, source_P, target_B)
    heads_PA = scores.grid(z_ND[source_A], z_ND[target_P], code, source_A, target_P).T
    out_PB = known.known(code, *torch.broadcast_tensors(source_P[:, None], target_B))
    out_PA = known.known(code, *torch.broadcast_tensors(source_A, target_P[:, None]))
    for one, other in ((source_P, target_P), (target_P, source_P))[: 2 if code in known.symmetric else 1]:
        out_PB = _mark(out_PB, one, source_P, other, other_first)
        out_PA = _mark(out_PA, other, target_P, one, first)
    ranks = [
        _ranks(tails_PB, target_P - other_first, out_PB),
        _ranks(heads_PA, source_P - first, out_PA),
    ]
    return torch.stack(ranks, dim=1)


def _mark(out_PK: Tensor, given_Q: Tensor, given_P: Tensor, sought_Q: Tensor, first: int) -> Tensor:
    """Take the given links off the lists of those that share their given end."""
    row, link = (given_P[:, None] == given_Q).nonzero(as_tuple=True)
    out_PK = out_PK.clone()
    out_PK[row, sought_Q[link] - first] = True
    return out_PK


def _ranks(score_PK: Tensor, own_P: Tensor, out_PK: Tensor) -> Tensor:
    """1 + the candidates above a link's own score + half of those level with it [P]."""
    own_P1 = score_PK.gather(1, own_P[:, None])
    rest_PK = score_PK.masked_fill(out_PK.scatter(1, own_P[:, None], True), -torch.inf)
    return 1 + (rest_PK > own_P1).sum(1) + (rest_PK == own_P1).sum(1) / 2


SMOOTHING = 0.1
"""Added to a degree before its logarithm."""

GAIN = 8.0
"""g: a hundred steps at the rate of the other parameters hardly move a few weights; validation MRR .45 without, .50
with 4, and .54 at three times the rate and twice the epochs (Hetionet's CtD, walks alone)."""

Path = tuple[int, ...]
"""Numbers of the relations of a walk, in the order in which they are taken."""


def metapaths_between(relations: Sequence[tuple[int, int]], first: int, last: int, longest: int) -> list[Path]:
    """All metapaths between two node types of at most so many steps, sorted so that common beginnings stand together.

    Args:
        relations: Node types of source and target of each relation [R].
        first: The node type that walks start from.
        last: The node type that they end in.
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
    r"""A perceptron on the degree-damped walks between each two nodes, and on the degrees of both.

    .. math::
        x_{ijp} = \sum_{walks \, of \, p} \prod_{steps} w_{ab} (d_a d_b)^{-1/2}, \quad
        s_{ij} = g \, (w \cdot h_{ij} + v \cdot \mathrm{gelu}(W h_{ij} + c)), \quad
        h_{ij} = [\log(1 + x_{ij} / u), \log(d_i + .1), \log(d_j + .1)]

    for each type of walk p of at most ``longest`` steps but the edge type itself (Himmelstein and Baranzini, PLoS
    Comput. Biol. 2015, 10.1371/journal.pcbi.1004259). Degrees and walks are those of the graph that is given, so no
    edge that was taken out of it is counted; they are data, and have no gradient. Damped sums hardly change when some
    edges are taken out, as counts do.

    Args:
        relations: Node types of source and target of each relation [R].
        sizes: Nodes of each type.
        own: The relation that is predicted, from source to target, and the one that reads it backwards (the same for
            an edge type without direction).
        csrs: The whole graph's matrices [R], from which the scale of each input is taken.
        longest: Steps of a walk at most.
        hidden: Width of the perceptron.

    Shapes:
        csrs -> [A, B], nodes of the source type by nodes of the target type.

    Raises:
        InputError: Two node types that no walk joins.
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
        # Walks start at the smaller node type: a column a start.
        self.turned = self.sizes[self.ends[1]] < self.sizes[self.ends[0]]
        first, last = self.ends[::-1] if self.turned else self.ends
        asked = own[1] if self.turned else own[0]
        self.paths = [path for path in metapaths_between(self.relations, first, last, longest) if path != (asked,)]
        if not self.paths:
            raise InputError(f"no walk of at most {longest} steps joins the two node types; set model.walk_pairs=0")
        self.reads = [[r for r, (_, target) in enumerate(self.relations) if target == end] for end in self.ends]
        with torch.no_grad():
            walks_ABF, degrees = self.walks(csrs), self.degrees(csrs)
            unit_F = walks_ABF.mean((0, 1)).clamp(min=1e-12)
            inputs = [(walks_ABF / unit_F).log1p(), *degrees]
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
            inputs = [(self.walks(csrs) / self.unit).log1p(), *self.degrees(csrs)]
            inputs = [
                (each - self.get_buffer(f"mean{number}")) / self.get_buffer(f"sd{number}")
                for number, each in enumerate(inputs)
            ]
        with torch.autocast(inputs[0].device.type, enabled=False):  # rounded log-odds would tie in a ranking
            hidden_ABH = nn.functional.gelu(_joined(self.maps, inputs))
            score_AB = GAIN * (self.read(hidden_ABH) + _joined(self.straight, inputs))[..., 0]
        return (score_AB + score_AB.T) / 2 if self.own[0] == self.own[1] else score_AB

    def walks(self, csrs: Sequence[CSR]) -> Float[Tensor, "A B F"]:
        """Damped sums of walks by type, x [A, B, F]."""
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
        """Number of each path and the mass at its end; common beginnings are walked once."""
        begun: list[tuple[Path, Tensor]] = [((), start.fill_diagonal_(1))]
        for number, path in enumerate(self.paths):
            while path[: len(begun[-1][0])] != begun[-1][0]:
                begun.pop()
            for r in path[len(begun[-1][0]) :]:
                begun.append(((*begun[-1][0], r), multiply(csrs[r], begun[-1][1])))
            yield number, begun[-1][1]

    def extra_repr(self) -> str:
        """Types of walks."""
        return f"metapaths_between={len(self.paths)}"


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


class StreamingLinks(Metric):
    """Code of the edge type, source and target of each link [n, 3]; ranks need all of them at once."""

    full_state_update = False
    links: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("links", [], dist_reduce_fx="cat")

    def update(self, edge_type_P: Int[Tensor, " P"], source_P: Int[Tensor, " P"], target_P: Int[Tensor, " P"]) -> None:
        """Add the links of a batch."""
        self.links.append(torch.stack([edge_type_P, source_P, target_P], dim=1))

    def compute(self) -> Int[Tensor, "n 3"]:
        """The links since the last ``reset``, sorted: the same whatever the batches and processes."""
        links_n3 = dim_zero_cat(self.links) if len(self.links) else torch.zeros(0, 3, dtype=torch.int64)
        return links_n3.unique(dim=0)
