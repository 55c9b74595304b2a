"""``TypedGraph``: edges by edge type as sparse matrices, and neighbors sampled from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from torchcell.graph.cell_graph import CSR, expand
from torchcell.io.errors import InputError, near, some
from torchcell.knowledge_graph.record import KnowledgeGraph
from torchcell.knowledge_graph.spec import PlainGraph

Edges = tuple[np.ndarray, np.ndarray]
"""Sources and targets among all nodes, int64 [E] each."""


class Relation(NamedTuple):
    """An edge type read in one direction, or in both where they mean the same.

    Attributes:
        name: The edge type, and ``<`` where it is read backwards.
        edge_type: The edge type.
        reverse: Whether it is read backwards.
        source: Number of the node type that sends.
        target: Number of the node type that receives.
    """

    name: str
    edge_type: str
    reverse: bool
    source: int
    target: int


class TypedGraph(nn.Module):
    """Nodes type by type, and the edges between them both ways; buffers on the device.

    Node type k holds the nodes ``bounds[k]`` to ``bounds[k + 1]``. An edge type within one node type that is not
    directed becomes one relation with both directions; any other becomes two, e.g. ``CtD`` from compounds to diseases
    and ``CtD<`` back. The edges of an edge type have an order: by source, then by target, the smaller end being the
    source where the edge type is symmetric; an edge's number is its place there. No ``state_dict`` holds them:
    ``to_plain`` does.

    Args:
        node_id: Ids, type by type [N].
        node_name: Names for people [N].
        node_types: The node types.
        bounds: Where each node type begins, and N [K + 1].
        ends: Edge type -> numbers of its node types of source and target; it may have no edges.
        edges: Edge type -> its edges, in any order.
        symmetric: The edge types whose directions mean the same.
        from_record: Where each node of the record stands here, int64 [N].
    """

    def __init__(
        self,
        node_id: np.ndarray,
        node_name: np.ndarray,
        node_types: Iterable[str],
        bounds: Iterable[int],
        ends: Mapping[str, tuple[int, int]],
        edges: Mapping[str, Edges],
        symmetric: Iterable[str],
        from_record: np.ndarray,
    ) -> None:
        super().__init__()
        self.node_id, self.node_name, self.from_record = node_id, node_name, from_record
        self.node_types, self.bounds, self.symmetric = tuple(node_types), tuple(bounds), frozenset(symmetric)
        self.edge_types = tuple(sorted(ends))
        self.ends = {name: tuple(ends[name]) for name in self.edge_types}
        self.relations = tuple(self._relations())
        self._sizes = {name: len(edges[name][0]) if name in edges else 0 for name in self.edge_types}
        for name in self.edge_types:
            self._register(name, *edges.get(name, (np.empty(0, np.int64), np.empty(0, np.int64))))
        most = max((len(self._part(r, "indices")) for r in range(len(self.relations))), default=0)
        self.ones: Tensor
        self.register_buffer("ones", torch.ones(most), persistent=False)
        self.hash = self._hash()

    def _relations(self) -> Iterator[Relation]:
        for name in self.edge_types:
            source, target = self.ends[name]
            yield Relation(name, name, False, source, target)
            if name not in self.symmetric:
                yield Relation(f"{name}<", name, True, target, source)

    def _register(self, edge_type: str, source: np.ndarray, target: np.ndarray) -> None:
        """The matrix of each relation of an edge type, and at which of its entries the edges stand."""
        both = edge_type in self.symmetric
        if both:
            source, target = np.minimum(source, target), np.maximum(source, target)
        order = np.lexsort((target, source))
        source, target = source[order], target[order]
        if both:
            source, target = np.concatenate([source, target]), np.concatenate([target, source])
        for number, relation in enumerate(self.relations):
            if relation.edge_type != edge_type:
                continue
            row, column = (source, target) if relation.reverse else (target, source)
            first, last = self.bounds[relation.target : relation.target + 2]
            order = np.lexsort((column, row))
            place = np.empty_like(order)  # of edge e: place[e], and place[E + e] where both directions are here
            place[order] = np.arange(len(order))
            indptr = np.searchsorted(row[order], np.arange(first, last + 1))
            indices = column[order] - self.bounds[relation.source]
            for part, values in (("indptr", indptr), ("indices", indices), ("place", place)):
                tensor = torch.from_numpy(values.astype(np.int32))
                self.register_buffer(f"relation{number}_{part}", tensor, persistent=False)

    @classmethod
    def from_knowledge_graph(
        cls, graph: KnowledgeGraph, ends: Mapping[str, tuple[str, str]] | None = None
    ) -> TypedGraph:
        """All edges of a record, its nodes brought in order of their node type.

        Args:
            graph: The record, validated.
            ends: Further edge types, with the node types of source and target, that have a relation though no edge is
                left, such as ``ends`` of the record before edges were taken out.

        Raises:
            InputError: A further edge type of a node type that the graph does not have.
        """
        code = {node_type: number for number, node_type in enumerate(graph.node_types)}
        named = {**(ends or {}), **graph.ends}
        strange = [name for name, node_types in named.items() if not set(node_types) <= set(code)]
        if strange:
            raise InputError(
                f"{graph.name}: edge types {some(strange)} join node types that it lacks; it has {list(code)}"
            )
        node_type = np.array([code[name] for name in graph.node_type.tolist()], dtype=np.int64)
        order = np.argsort(node_type, kind="stable")
        from_record = np.empty(len(node_type), dtype=np.int64)
        from_record[order] = np.arange(len(node_type))
        number = {name: i for i, name in enumerate(named)}
        edge_type = np.array([number[name] for name in graph.edge_type.tolist()], dtype=np.int64)
        by_type = np.argsort(edge_type, kind="stable")
        cuts = np.searchsorted(edge_type[by_type], np.arange(len(named) + 1))
        source, target = (from_record[at[by_type]] for at in (graph.source_index, graph.target_index))
        return cls(
            graph.node_id[order],
            graph.node_name[order],
            graph.node_types,
            np.searchsorted(node_type[order], np.arange(len(code) + 1)).tolist(),
            {name: (code[a], code[b]) for name, (a, b) in named.items()},
            {name: (source[cuts[i] : cuts[i + 1]], target[cuts[i] : cuts[i + 1]]) for name, i in number.items()},
            [name for name, (a, b) in named.items() if a == b and name not in graph.directed],
            from_record,
        )

    def __len__(self) -> int:
        return len(self.node_id)

    def _part(self, relation: int, part: str) -> Tensor:
        return getattr(self, f"relation{relation}_{part}")

    def csr(self, relation: int, weight: Tensor | None = None) -> CSR:
        """The matrix of a relation [nodes of the target type, nodes of the source type], on the module's device.

        Args:
            relation: Position in ``relations``.
            weight: Weight of each entry [E]; none: 1.
        """
        indices = self._part(relation, "indices")
        return CSR(self._part(relation, "indptr"), indices, self.ones[: len(indices)] if weight is None else weight)

    def csrs(self, weights: Iterable[Tensor] | None = None) -> list[CSR]:
        """The matrices of all relations [R], with such weights as ``weights_without`` gives."""
        given = [None] * len(self.relations) if weights is None else weights
        return [self.csr(number, weight) for number, weight in enumerate(given)]

    def n_edges(self, edge_type: str) -> int:
        """Edges of an edge type, each counted once."""
        self._check(edge_type)
        return self._sizes[edge_type]

    def edges(self, edge_type: str) -> tuple[Tensor, Tensor]:
        """Sources and targets of an edge type's edges among all nodes, int64 [E] each, in order of their numbers."""
        self._check(edge_type)
        r = next(number for number, relation in enumerate(self.relations) if relation.edge_type == edge_type)
        relation, place = self.relations[r], self._part(r, "place")[: self._sizes[edge_type]].long()
        indptr, indices = self._part(r, "indptr"), self._part(r, "indices")
        rows = torch.arange(len(indptr) - 1, device=indptr.device)
        row = torch.repeat_interleave(rows, indptr.diff(), output_size=len(indices))
        return indices[place].long() + self.bounds[relation.source], row[place] + self.bounds[relation.target]

    def edge_number(self, edge_type: str, source: Tensor, target: Tensor) -> Tensor:
        """Numbers of edges by their ends among all nodes, int64 [P]; -1 for what is no edge of the edge type."""
        ends = torch.stack(self.edges(edge_type))
        if edge_type in self.symmetric:
            source, target = torch.minimum(source, target), torch.maximum(source, target)
        key, wanted = ends[0] * len(self) + ends[1], source * len(self) + target
        if not len(key):
            return torch.full_like(wanted, -1)
        at = torch.searchsorted(key, wanted).clamp(max=len(key) - 1)
        return torch.where(key[at] == wanted, at, -1)

    def weights_without(self, edge_type: Tensor, edge: Tensor) -> list[Tensor]:
        """A weight for each entry of each relation: 1, and 0 where one of the given edges stands, in any direction.

        Args:
            edge_type: Positions in ``edge_types``, int64 [P].
            edge: Numbers within the edge type, int64 [P].
        """
        weights = [self.ones[: len(self._part(r, "indices"))] for r in range(len(self.relations))]
        codes = set(edge_type.unique().tolist())
        for r, relation in enumerate(self.relations):
            code = self.edge_types.index(relation.edge_type)
            if code in codes:
                place, size = self._part(r, "place"), self._sizes[relation.edge_type]
                # One row of places, or two where both directions are here.
                gone = place.view(len(place) // size, size)[:, edge[edge_type == code]].flatten().long()
                weights[r] = weights[r].index_fill(0, gone, 0)
        return weights

    def degree(self, edge_type: str) -> tuple[Tensor, Tensor]:
        """Edges that start and that end at each node, int64 [N] each; of a symmetric edge type both count all."""
        source, target = (torch.bincount(each, minlength=len(self)) for each in self.edges(edge_type))
        return (source + target, source + target) if edge_type in self.symmetric else (source, target)

    def position_of(self, ids: Iterable[str]) -> np.ndarray:
        """Positions of node ids, int64; -1 for an id that the graph does not have."""
        position = {name: i for i, name in enumerate(self.node_id.tolist())}
        return np.array([position.get(name, -1) for name in ids], dtype=np.int64)

    def _check(self, edge_type: str) -> None:
        if edge_type not in self.edge_types:
            hint = near(edge_type, self.edge_types) or list(self.edge_types)
            raise InputError(f"the graph has no edge type {edge_type!r}; the nearest are {hint}")

    def to_plain(self) -> PlainGraph:
        """Names, numbers and tensors only, as a spec holds them."""
        sides = {name: self.edges(name) for name in self.edge_types}
        return PlainGraph(
            node_id=tuple(self.node_id.tolist()),
            node_name=tuple(self.node_name.tolist()),
            node_types=self.node_types,
            bounds=self.bounds,
            ends={name: (first, second) for name, (first, second) in self.ends.items()},
            edges={name: (source.int().cpu(), target.int().cpu()) for name, (source, target) in sides.items()},
            symmetric=tuple(sorted(self.symmetric)),
            from_record=torch.from_numpy(self.from_record),
            hash=self.hash,
        )

    @classmethod
    def from_plain(cls, plain: PlainGraph) -> TypedGraph:
        """The inverse of ``to_plain``.

        Raises:
            InputError: Values that another hash was made of.
        """
        edges = {name: (s.long().numpy(), t.long().numpy()) for name, (s, t) in plain.edges.items()}
        names = (np.array(plain.node_id, dtype=str), np.array(plain.node_name, dtype=str))
        from_record = plain.from_record.numpy()
        graph = cls(*names, plain.node_types, plain.bounds, plain.ends, edges, plain.symmetric, from_record)
        if graph.hash != plain.hash:
            raise InputError(f"the graph's hash is {graph.hash}, the file says {plain.hash}: it was changed")
        return graph

    def _hash(self) -> str:
        said = [self.node_id.tolist(), self.node_types, self.bounds, self.ends, sorted(self.symmetric)]
        digest = hashlib.sha256(json.dumps(said).encode())
        for name in self.edge_types:
            for end in self.edges(name):
                digest.update(end.numpy().astype(np.int64).tobytes())
        return digest.hexdigest()

    def extra_repr(self) -> str:
        """Nodes a node type, edge types and edges."""
        nodes = ", ".join(
            f"{b - a:,} {k}s" for k, a, b in zip(self.node_types, self.bounds, self.bounds[1:], strict=False)
        )
        return f"{nodes}; {len(self.edge_types)} edge types, {sum(self._sizes.values()):,} edges"


class SampledGraph(NamedTuple):
    """A part of a typed graph, its nodes in the graph's own order and so type by type.

    Attributes:
        node_M: Where its nodes stand in the graph, int64 [M], ascending.
        bounds: Node type k holds the nodes ``bounds[k]`` to ``bounds[k + 1]`` of ``node_M`` [K + 1].
        csrs: A matrix a relation [R], over these nodes.
        seed_position_S: Where the seeds stand in ``node_M``, int64 [S].
    """

    node_M: Tensor
    bounds: list[int]
    csrs: list[CSR]
    seed_position_S: Tensor


class NeighborSampler(nn.Module):
    """Draw the edges into nodes, hop by hop, without a loop over nodes.

    All relations' entries stand in one list, relation by relation; of each node it is known where the entries that
    enter it are, so a draw is ``start + floor(rand x degree)``. As many draws a node as the fan-out, with replacement;
    what is drawn twice counts once, so a node of few edges more than the fan-out keeps fewer. A node with no more edges
    than the fan-out keeps all: a fan-out above every degree is the whole neighborhood.

    Args:
        graph: The graph; 16 bytes an entry are stored beside it.
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
