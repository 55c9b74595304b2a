"""``KnowledgeGraph`` and ``Links``: typed nodes and edges, and candidate edges to be compared with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from torchcell.io.errors import (
    InputError,
    as_positions,
    column,
    near,
    refuse,
    refuse_repeats,
    refuse_shapes,
    some,
    texts,
)
from torchcell.io.fingerprint import record_fingerprint
from torchcell.io.hetero_data import edge_types, hetero_node_names, without_reverse

if TYPE_CHECKING:
    import pandas as pd
    from torch_geometric.data import HeteroData


NODE_COLUMNS: tuple[str, ...] = ("id", "name", "type")
EDGE_COLUMNS: tuple[str, ...] = ("source", "edge_type", "target")
LICENCE = "licence"
"""Column of the edge table that may be left out."""
FORMER = {"type": "kind", "edge_type": "metaedge"}
"""Column -> what torchcell 0.1 called it."""
DROP = ", or leave out rows that repeat an earlier one: data.record.graph.drop_duplicates=true"


@dataclass(frozen=True, eq=False)
class KnowledgeGraph:
    """N nodes of several types, E edges of several edge types, each of which joins two node types.

    Attributes:
        name: Short name, e.g. ``hetionet_core``.
        node_id: Unique ids [N].
        node_name: Names for people [N].
        node_type: Type of each node [N].
        node_types: The node types there are, in order.
        source_id: Node id at the start of each edge [E].
        edge_type: Type of each edge [E].
        target_id: Node id at the end of each edge [E].
        directed: Edge types within one node type whose two directions mean different things, e.g. ``Gr>G``; of
            any other edge type A-B and B-A are one edge.
        licence: Licence of each edge [E], where the source tells; or none at all.
        dropped: What parsing left out and how many of each.
    """

    name: str
    node_id: np.ndarray
    node_name: np.ndarray
    node_type: np.ndarray
    node_types: tuple[str, ...]
    source_id: np.ndarray
    edge_type: np.ndarray
    target_id: np.ndarray
    directed: tuple[str, ...] = ()
    licence: np.ndarray | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.edge_type)

    @cached_property
    def sample_id(self) -> np.ndarray:
        """``source|edge_type|target`` of each edge [E]."""
        return link_ids(self.source_id, self.edge_type, self.target_id)

    @property
    def target(self) -> np.ndarray:
        """All ones, float32 [E, 1]: every edge of the graph is there; see ``links.link_samples``."""
        return np.ones((len(self), 1), dtype=np.float32)

    @property
    def edge_types(self) -> tuple[str, ...]:
        """The types of edges, sorted."""
        return tuple(self.ends)

    @cached_property
    def ends(self) -> dict[str, tuple[str, str]]:
        """Node types of source and target of each edge type, by sorted name."""
        names, first = np.unique(self.edge_type, return_index=True)
        node_types = (self.node_type[at[first]].tolist() for at in (self.source_index, self.target_index))
        return dict(zip(names.tolist(), zip(*node_types, strict=True), strict=True))

    @cached_property
    def symmetric(self) -> frozenset[str]:
        """Edge types within one node type whose two directions mean the same."""
        return frozenset(name for name, (a, b) in self.ends.items() if a == b and name not in self.directed)

    @cached_property
    def source_index(self) -> np.ndarray:
        """Position of each edge's source among the nodes, int64 [E]; -1 if it is no node."""
        return self.index(self.source_id)

    @cached_property
    def target_index(self) -> np.ndarray:
        """Position of each edge's target among the nodes, int64 [E]; -1 if it is no node."""
        return self.index(self.target_id)

    def index(self, ids: np.ndarray) -> np.ndarray:
        """Positions of node ids, int64; -1 for an id that is not in the node table."""
        position = {name: i for i, name in enumerate(self.node_id.tolist())}
        return np.array([position.get(name, -1) for name in ids.tolist()], dtype=np.int64)

    def subset(self, index: np.ndarray) -> KnowledgeGraph:
        """The edges at ``index`` (integers or a mask), in that order; the nodes stay whole."""
        at = as_positions(index)
        edges = {name: getattr(self, name)[at] for name in ("source_id", "edge_type", "target_id")}
        licence = None if self.licence is None else self.licence[at]
        part = replace(self, **edges, licence=licence)
        for name in ("source_index", "target_index"):  # the nodes are the same: what is known need not be looked up
            if name in vars(self):
                vars(part)[name] = vars(self)[name][at]
        return part

    def by_type(self) -> KnowledgeGraph:
        """The graph with its nodes sorted by node type; those of one node type keep their order."""
        order = self.node_type.argsort(kind="stable")
        nodes = {name: getattr(self, name)[order] for name in ("node_id", "node_name", "node_type")}
        return replace(self, **nodes)

    def without_duplicates(self) -> KnowledgeGraph:
        """The graph without rows that repeat an earlier one, counted in ``dropped``; ``validate`` it afterwards.

        A node is repeated with the same name and node type, an edge with the same licence; of an edge type that is not
        ``directed``, within one node type, A-B and B-A are one edge. What is repeated otherwise stays, and ``validate``
        refuses it.
        """
        import pandas as pd

        nodes = pd.DataFrame({"id": self.node_id, "name": self.node_name, "type": self.node_type})
        node_type = dict(zip(self.node_id.tolist(), self.node_type.tolist(), strict=True))
        between = [[node_type.get(end) for end in ids.tolist()] for ids in (self.source_id, self.target_id)]
        one_way = np.isin(self.edge_type, self.directed) | (np.array(between[0]) != np.array(between[1]))
        as_it_is = one_way | (self.source_id < self.target_id)
        low = np.where(as_it_is, self.source_id, self.target_id)
        high = np.where(as_it_is, self.target_id, self.source_id)
        edges = pd.DataFrame({"low": low, "edge_type": self.edge_type, "high": high})
        if self.licence is not None:
            edges["licence"] = self.licence
        node, edge = (~table.duplicated().to_numpy() for table in (nodes, edges))
        counts = {"repeated nodes": int((~node).sum()), "repeated edges": int((~edge).sum())}
        of_nodes = {name: getattr(self, name)[node] for name in ("node_id", "node_name", "node_type")}
        lost = {**self.dropped, **{what: n for what, n in counts.items() if n}}
        return replace(self.subset(edge), **of_nodes, dropped=lost)

    def fingerprint(self) -> str:
        """A hash over all nodes and edges, see ``torchcell.io.fingerprint``; not over ``name`` and ``dropped``."""
        return record_fingerprint(self)

    def validate(self) -> KnowledgeGraph:
        """Return self, or raise one ``InputError`` that names the offending nodes or edges."""
        n, e = (len(self.node_id),), (len(self),)
        shapes = {"node_name": n, "node_type": n, "source_id": e, "target_id": e, "licence": e}
        refuse_shapes(self.name, vars(self), shapes)
        refuse_repeats(self.name, self.node_id, "node ids", f"make them unique{DROP}")
        refuse_repeats(self.name, np.array(self.node_types), "node types")
        odd = ~np.isin(self.node_type, self.node_types)
        refuse(
            self.name, self.node_id[odd], "a node type that is not listed", f"list it beside {list(self.node_types)}"
        )
        empty = [node_type for node_type in self.node_types if node_type not in set(self.node_type.tolist())]
        if empty:
            raise InputError(f"{self.name}: node types without nodes: {some(empty)}; leave them out or add nodes")
        for end, at in ((self.source_id, self.source_index), (self.target_id, self.target_index)):
            missing = np.unique(end[at < 0])
            refuse(self.name, self.sample_id[at < 0], f"an end outside the node table ({some(missing)})", "add it")
        loops = self.sample_id[self.source_id == self.target_id]
        refuse(self.name, loops, "an edge from a node to itself", "drop it")
        self._validate_edge_types()
        return self

    def _validate_edge_types(self) -> None:
        ends = np.stack([self.edge_type, *(self.node_type[i] for i in (self.source_index, self.target_index))])
        first: dict[str, tuple[str, str]] = {}
        for edge_type, source, target in np.unique(ends, axis=1).T.tolist():
            if first.setdefault(edge_type, (source, target)) != (source, target):
                both = f"{'-'.join(first[edge_type])} and {source}-{target}"
                raise InputError(f"{self.name}: edge type {edge_type!r} joins {both}; give each its own name")
        unknown = [name for name in self.directed if name not in first]
        if unknown and len(self):
            raise InputError(f"{self.name}: directed edge types without edges: {some(unknown)}; mend the list")
        one_way = np.isin(self.edge_type, self.directed)
        low = np.where(one_way, self.source_index, np.minimum(self.source_index, self.target_index))
        high = np.where(one_way, self.target_index, np.maximum(self.source_index, self.target_index))
        _, code = np.unique(self.edge_type, return_inverse=True)
        key = (code * len(self.node_id) + low) * len(self.node_id) + high
        _, kept = np.unique(key, return_index=True)
        repeated = np.delete(self.sample_id, kept)
        refuse(self.name, repeated, "an edge that an earlier row has too, in either direction", f"drop it{DROP}")

    def to_tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The node table ``id, name, type`` and the edge table ``source, edge_type, target``."""
        import pandas as pd

        nodes = zip(NODE_COLUMNS, (self.node_id, self.node_name, self.node_type), strict=True)
        edges = zip(EDGE_COLUMNS, (self.source_id, self.edge_type, self.target_id), strict=True)
        return pd.DataFrame(dict(nodes)), pd.DataFrame(dict(edges))

    @classmethod
    def from_tables(
        cls,
        nodes: pd.DataFrame,
        edges: pd.DataFrame,
        name: str = "knowledge_graph",
        columns: Mapping[str, str] | None = None,
        directed: Sequence[str] = (),
        node_types: Sequence[str] | None = None,
    ) -> KnowledgeGraph:
        """Read a record from two tables; ``validate`` it afterwards.

        Args:
            nodes: One row a node, with the columns ``id, name, type``.
            edges: One row an edge, with the columns ``source, edge_type, target`` and, optionally, ``licence``.
            name: Name of the record.
            columns: Internal name -> name in the tables, for those that differ.
            directed: Edge types within one node type whose directions mean different things.
            node_types: The node types that are expected, in order; by default those of the nodes, sorted.

        Raises:
            InputError: A missing column, a key of ``columns`` that is no internal name.
        """
        columns = columns or {}
        known = [*NODE_COLUMNS, *EDGE_COLUMNS, LICENCE]
        for key in columns:
            if key not in known:
                raise InputError(f"{name}: no internal column {key!r}; the nearest are {near(key, known) or known}")
        node_id, node_name, node_type = (texts(column(name, nodes, columns.get(c, c))) for c in NODE_COLUMNS)
        source, edge_type, target = (texts(column(name, edges, columns.get(c, c))) for c in EDGE_COLUMNS)
        ordered = tuple(np.unique(node_type).tolist()) if node_types is None else tuple(node_types)
        licence_column = columns.get(LICENCE, LICENCE)
        licence = texts(column(name, edges, licence_column)) if licence_column in edges or LICENCE in columns else None
        return cls(name, node_id, node_name, node_type, ordered, source, edge_type, target, tuple(directed), licence)

    def to_hetero_data(self) -> HeteroData:
        """The graph for torch-geometric: ``data[node_type]`` and ``data[source_type, edge_type, target_type]``.

        A node type has ``node_id`` and ``name``, lists of texts. An edge type has ``edge_index``, int64 [2, E], with
        each edge once (``ToUndirected`` adds the way back), ``directed`` and, where known, ``licence``. ``position``
        of both is the place in this record, by which ``from_hetero_data`` brings all back in order.

        Example:
            >>> data = graph.to_hetero_data()
            >>> data["drug", "binds", "protein"].edge_index
        """
        import torch
        from torch_geometric.data import HeteroData

        data = HeteroData()
        place = np.empty(len(self.node_id), dtype=np.int64)
        for node_type in self.node_types:
            at = np.flatnonzero(self.node_type == node_type)
            place[at] = np.arange(len(at))
            nodes = data[node_type]
            nodes.num_nodes, nodes.position = len(at), torch.from_numpy(at)
            nodes.node_id, nodes.name = self.node_id[at].tolist(), self.node_name[at].tolist()
        for edge_type, (source, target) in self.ends.items():
            at = np.flatnonzero(self.edge_type == edge_type)
            edges = data[source, edge_type, target]
            ends = place[self.source_index[at]], place[self.target_index[at]]
            edges.edge_index, edges.position = torch.from_numpy(np.stack(ends)), torch.from_numpy(at)
            edges.directed = edge_type in self.directed
            if self.licence is not None:
                edges.licence = self.licence[at].tolist()
        return data

    @classmethod
    def from_hetero_data(
        cls,
        data: HeteroData,
        name: str = "knowledge_graph",
        directed: Sequence[str] = (),
        node_types: Sequence[str] | None = None,
    ) -> KnowledgeGraph:
        """The inverse of ``to_hetero_data``, also of a graph made elsewhere; ``validate`` it afterwards.

        Features of nodes and edges are left out. A relation that several pairs of node types share is called
        ``source-relation-target``; one that holds another's edges backwards (``rev_...``) is left out and counted.

        Args:
            data: Nodes without ``node_id``, or with numbers, are called ``<node_type>:<number>``; those without
                ``name`` by their id.
            name: Name of the record.
            directed: Further edge types within one node type whose directions mean different things.
            node_types: The node types in order; by default those of ``data``.

        Raises:
            InputError: No ``edge_index``, an edge to a node that is not there, not as many names as nodes.
        """
        listed = tuple(data.node_types if node_types is None else node_types)
        ids = {node_type: hetero_node_names(data, node_type) for node_type in data.node_types}
        types, lost = without_reverse(edge_types(data))
        node_id = np.concatenate([np.empty(0, dtype=str), *ids.values()])
        names = [
            hetero_node_names(data, node_type, "name") if "name" in data[node_type] else own
            for node_type, own in ids.items()
        ]
        node_type = np.repeat(np.array(list(ids), dtype=str), [len(own) for own in ids.values()])
        nodes = _order([data[node_type] for node_type in ids], [len(own) for own in ids.values()])
        edges = _order([one.rest for one in types], [len(one.source) for one in types])
        source = np.concatenate([np.empty(0, dtype=str), *(ids[one.ends[0]][one.source] for one in types)])
        target = np.concatenate([np.empty(0, dtype=str), *(ids[one.ends[1]][one.target] for one in types)])
        edge_type = np.repeat(np.array([one.name for one in types], dtype=str), [len(one.source) for one in types])
        one_way = [one.name for one in types if one.rest.get("directed") and one.ends[0] == one.ends[1]]
        licence = None
        if types and all("licence" in one.rest for one in types):
            licence = np.concatenate([np.asarray(one.rest["licence"], dtype=str) for one in types])[edges]
        return cls(
            name,
            node_id[nodes],
            np.concatenate([np.empty(0, dtype=str), *names])[nodes],
            node_type[nodes],
            listed,
            source[edges],
            edge_type[edges],
            target[edges],
            tuple(dict.fromkeys([*one_way, *directed])),
            licence,
            lost,
        )


def _order(stores: Sequence[Any], sizes: Sequence[int]) -> np.ndarray:
    """The order in which a record had what comes type by type; as it comes where that is not known of all."""
    if not all("position" in store and len(store["position"]) == n for store, n in zip(stores, sizes, strict=True)):
        return np.arange(sum(sizes))
    places = [np.asarray(store["position"], dtype=np.int64) for store in stores]
    return np.argsort(np.concatenate([np.empty(0, dtype=np.int64), *places]), kind="stable")


def link_ids(source: np.ndarray, edge_type: np.ndarray | str, target: np.ndarray) -> np.ndarray:
    """Names of links, ``source|edge_type|target``, [n]."""
    between = np.char.add("|", np.char.add(edge_type, "|"))
    return np.char.add(np.char.add(source, between), target)


NOT_STATED = "not stated"
"""Licence of an edge whose cell in the table is empty."""


def of_licences(graph: KnowledgeGraph, licences: Sequence[str] | None) -> KnowledgeGraph:
    """The edges of the named licences; all of them where none is named.

    Args:
        graph: With a licence an edge.
        licences: As they are written in the edge table; ``NOT_STATED`` for an empty cell.

    Raises:
        InputError: A graph without licences, or a licence that no edge has; the message lists those there are.
    """
    if licences is None:
        return graph
    if graph.licence is None:
        raise InputError(f"{graph.name}: its edge table has no column of licences; set licences=null")
    licence = np.where(graph.licence == "", NOT_STATED, graph.licence)
    names, counts = np.unique(licence, return_counts=True)
    unknown = [name for name in licences if name not in names]
    if unknown or not licences:
        there = ", ".join(f"{name!r} ({count:,} edges)" for name, count in zip(names.tolist(), counts, strict=True))
        hint = [hit for name in unknown for hit in near(name, names.tolist())]
        nearest = f"; the nearest are {hint}" if hint else ""
        raise InputError(f"{graph.name}: no edge has the licence {unknown}{nearest}; there are {there}")
    kept = np.isin(licence, licences)
    return _count(graph.subset(kept), {"edges of other licences": int((~kept).sum())})


def connected(graph: KnowledgeGraph) -> KnowledgeGraph:
    """The nodes that have an edge, and the node types that have such nodes: of any other nothing can be learned."""
    used = np.zeros(len(graph.node_id), dtype=bool)
    used[graph.source_index], used[graph.target_index] = True, True
    return _of_nodes(graph, used, "nodes without an edge")


def best_connected(graph: KnowledgeGraph, limit: int | None) -> KnowledgeGraph:
    """At most ``limit`` nodes, for trials: of each type the same share, those with most edges, and the edges between.

    Degrees count all edges, also those that are tested later: a score on a limited graph is no result.

    Args:
        graph: N nodes.
        limit: Number of nodes; None keeps all. Fewer are left where one loses all its edges.

    Raises:
        InputError: Fewer nodes than two a node type.
    """
    if limit is None or limit >= len(graph.node_id):
        return graph
    if limit < 2 * len(graph.node_types):
        raise InputError(
            f"limit_nodes={limit}: {len(graph.node_types)} node types need at least {2 * len(graph.node_types)} nodes"
        )
    n_nodes = len(graph.node_id)
    degree = np.bincount(np.concatenate([graph.source_index, graph.target_index]), minlength=n_nodes)
    kept = np.zeros(n_nodes, dtype=bool)
    for node_type in graph.node_types:
        of_type = np.flatnonzero(graph.node_type == node_type)
        share = max(2, len(of_type) * limit // n_nodes)
        kept[of_type[np.argsort(-degree[of_type], kind="stable")[:share]]] = True
    return connected(_of_nodes(graph, kept, f"nodes beyond limit_nodes={limit}"))


def _of_nodes(graph: KnowledgeGraph, kept: np.ndarray, why: str) -> KnowledgeGraph:
    """The nodes in the mask ``kept`` [N] with the edges between them; what goes is counted."""
    whole = kept[graph.source_index] & kept[graph.target_index]
    part = graph.subset(whole)
    node_type = graph.node_type[kept]
    nodes = replace(
        part,
        node_id=graph.node_id[kept],
        node_name=graph.node_name[kept],
        node_type=node_type,
        node_types=tuple(name for name in graph.node_types if (node_type == name).any()),
        directed=tuple(name for name in graph.directed if name in part.edge_types),
    )
    gone = sorted(set(graph.edge_types) - set(nodes.edge_types))
    lost = {why: int((~kept).sum()), "edges of such nodes": int((~whole).sum())}
    return _count(nodes, lost | {f"edge types without edges left ({', '.join(gone)})": len(gone)})


def _count(graph: KnowledgeGraph, lost: dict[str, int]) -> KnowledgeGraph:
    """The graph with what was left out of it; nothing is counted where nothing was."""
    total = dict(graph.dropped)
    for what, n in lost.items():
        total[what] = total.get(what, 0) + n
    return replace(graph, dropped={what: n for what, n in total.items() if n})


def draw_negatives(
    graph: KnowledgeGraph, edges: KnowledgeGraph, wanted: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Non-edges of one edge type, each pair drawn once: no uniform one is a matched one too.

    Args:
        graph: All nodes and edges.
        edges: All edges of the edge type.
        wanted: Pairs of each kind of negative.
        rng: Draws them.

    Returns:
        Matched pairs, whose ends are drawn in proportion to their degree in this edge type, so that the degree alone
        tells little; and uniform ones, drawn from all nodes of the two types. Positions, int64 [wanted, 2] each.

    Raises:
        InputError: More pairs than a draw with rejection finds quickly.
    """
    (edge_type,) = edges.edge_types
    ends = [edges.source_index, edges.target_index]
    either_way = edge_type in graph.symmetric
    # A node's degree counts the edges that name it at either end, where the ends mean the same.
    matched = [np.concatenate(ends)] * 2 if either_way else ends
    uniform = [np.flatnonzero(graph.node_type == node_type) for node_type in graph.ends[edge_type]]
    n_nodes = len(graph.node_id)
    taken = pair_keys(ends[0], ends[1], n_nodes, either_way)
    found = []
    for pools in (matched, uniform):
        sizes = [len(np.unique(pool)) for pool in pools]
        room = (sizes[0] * (sizes[0] - 1) // 2 if either_way else sizes[0] * sizes[1]) - len(taken)
        if wanted > room // 2:  # a draw with rejection is quick only while most pairs are free
            raise InputError(
                f"{graph.name}: {wanted:,} negatives of {edge_type} are wanted, but only {room:,} pairs of these "
                "nodes are no edge and at most half of them are drawn; lower negatives_per_positive"
            )
        pairs = _draw(pools, wanted, taken, n_nodes, either_way, rng)
        taken = np.concatenate([taken, pair_keys(pairs[:, 0], pairs[:, 1], n_nodes, either_way)])
        found.append(pairs)
    return found[0], found[1]


def pair_keys(source: np.ndarray, target: np.ndarray, n_nodes: int, either_way: bool) -> np.ndarray:
    """One number per pair, int64 [n]; where the ends mean the same, the same number in both directions."""
    if either_way:
        source, target = np.minimum(source, target), np.maximum(source, target)
    return source * n_nodes + target


def _either_way(graph: KnowledgeGraph, edge_type: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """One number per edge, the same in both directions, int64 [n]; below 0 for an edge type that the graph lacks."""
    n_nodes, code = len(graph.node_id), np.full(len(edge_type), -1, dtype=np.int64)
    for number, name in enumerate(graph.edge_types):
        code[edge_type == name] = number
    return code * n_nodes**2 + pair_keys(source, target, n_nodes, True)


def _draw(
    pools: list[np.ndarray], wanted: int, taken: np.ndarray, n_nodes: int, either_way: bool, rng: np.random.Generator
) -> np.ndarray:
    """Distinct pairs with an end from each pool, none of them a loop or ``taken`` [wanted, 2]."""
    found = np.empty((0, 2), dtype=np.int64)
    while len(found) < wanted:
        drawn = np.stack([rng.choice(pool, 2 * wanted) for pool in pools], axis=1)
        both = np.concatenate([found, drawn[drawn[:, 0] != drawn[:, 1]]])
        keys = pair_keys(both[:, 0], both[:, 1], n_nodes, either_way)
        first = np.sort(np.unique(keys, return_index=True)[1])
        found = both[first[~np.isin(keys[first], taken)]]
    return found[:wanted]


NEGATIVES: tuple[str, ...] = ("matched", "uniform")
"""Kinds of sampled non-edges: drawn in proportion to degree, or alike from all nodes of the two kinds. Each has an
output of its own, since the choice of negatives decides such scores."""


@dataclass(frozen=True, eq=False)
class Links:
    """Candidate edges of one or more supervised edge types; n candidates, T outputs.

    A positive of edge type m has 1 in both outputs of m; a negative has 0 in the one of its kind. A sampled non-edge is
    an edge that nobody knows of, not one that is ruled out.

    Attributes:
        name: Short name, e.g. ``hetionet_core``.
        graph: All nodes, and the edges that may be seen.
        edge_type: Type of each candidate [n].
        source_index: Positions in ``graph.node_id``, int64 [n].
        target_index: Positions in ``graph.node_id``, int64 [n].
        label: 1 an edge, 0 a sampled non-edge, NaN not of this output, float32 [n, T].
        outputs: ``<edge_type>_matched`` and ``<edge_type>_uniform`` for each supervised edge type in order [T].
        positive: Whether the candidate is an edge, bool [n].
    """

    name: str
    graph: KnowledgeGraph
    edge_type: np.ndarray
    source_index: np.ndarray
    target_index: np.ndarray
    label: np.ndarray
    outputs: tuple[str, ...]
    positive: np.ndarray

    def __len__(self) -> int:
        return len(self.source_index)

    @cached_property
    def sample_id(self) -> np.ndarray:
        """``source|edge_type|target`` of each candidate [n]."""
        ids = self.node_id
        return link_ids(ids[self.source_index], self.edge_type, ids[self.target_index])

    @property
    def node_id(self) -> np.ndarray:
        """Ids of all nodes [N]."""
        return self.graph.node_id

    @property
    def target(self) -> np.ndarray:
        """The labels [n, T]; every record kind names its target so."""
        return self.label

    @property
    def task(self) -> str:
        """What the target is: 0 or 1."""
        return "binary"

    @property
    def phenotype_names(self) -> tuple[str, ...]:
        """Names of the target's columns."""
        return self.outputs

    @property
    def dropped(self) -> dict[str, int]:
        """What parsing the graph left out."""
        return dict(self.graph.dropped)

    @property
    def contents(self) -> dict[str, int]:
        """What the graph and the candidates hold, counts by a noun, for the report."""
        graph = self.graph
        found = {"node": len(graph.node_id), "node type": len(graph.node_types), "visible edge": len(graph.edge_type)}
        return {**found, "edge type": len(np.unique(graph.edge_type)), "supervised edge": int(self.positive.sum())}

    @property
    def supervised(self) -> tuple[str, ...]:
        """The edge types that are predicted, in the order of the outputs."""
        return tuple(name.removesuffix(f"_{NEGATIVES[0]}") for name in self.outputs[:: len(NEGATIVES)])

    def subset(self, index: np.ndarray) -> Links:
        """The candidates at ``index`` (integers or a mask), in that order; the graph stays whole."""
        at = as_positions(index)
        names = ("edge_type", "source_index", "target_index", "label", "positive")
        return replace(self, **{name: getattr(self, name)[at] for name in names})

    def joined(self, other: Links) -> Links:
        """These candidates, then those of another record on the same nodes; the graph is this one's."""
        names = ("edge_type", "source_index", "target_index", "label", "positive")
        both: dict[str, Any] = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        return replace(self, **both)

    def blind(self) -> Links:
        """The same candidates without labels: what a baseline may see of a test part."""
        nothing = np.broadcast_to(np.float32(np.nan), self.label.shape)
        return replace(self, label=nothing, positive=np.broadcast_to(np.False_, len(self)))

    def hiding(self, held_out: np.ndarray) -> Links:
        """The same candidates on a graph without the edges of those ``held_out``, a mask [n], in either direction."""
        graph, hidden = self.graph, self.positive & held_out
        gone = _either_way(graph, self.edge_type[hidden], self.source_index[hidden], self.target_index[hidden])
        edges = _either_way(graph, graph.edge_type, graph.source_index, graph.target_index)
        return replace(self, graph=graph.subset(~np.isin(edges, gone)))

    def duplicate_keys(self) -> np.ndarray:
        """A text per candidate [n]; both directions of an edge within one kind share it, of negatives none do."""
        node_type, ids = self.graph.node_type, self.node_id
        first, last = self.source_index, self.target_index
        swap = self.positive & (node_type[first] == node_type[last]) & (first > last)
        first, last = np.where(swap, last, first), np.where(swap, first, last)
        mark = np.where(self.positive, self.edge_type, np.char.add(self.edge_type, " not"))
        return link_ids(ids[first], mark, ids[last])

    def fingerprint(self) -> str:
        """A hash over all candidates, labels and the graph, see ``torchcell.io.fingerprint``; not over ``name``."""
        return record_fingerprint(self)

    def validate(self) -> Links:
        """Return self, or raise one ``InputError`` that names the offending candidates."""
        n, ids = len(self), self.graph.node_id
        shapes = dict.fromkeys(("edge_type", "source_index", "target_index", "positive"), (n,))
        refuse_shapes(self.name, vars(self), {**shapes, "label": (n, len(self.outputs))})
        expected = tuple(f"{edge_type}_{drawn}" for edge_type in self.supervised for drawn in NEGATIVES)
        if self.outputs != expected or not expected:
            raise InputError(f"{self.name}: outputs {some(self.outputs)} must be two an edge type, as {some(expected)}")
        outside = [(index < 0) | (index >= len(ids)) for index in (self.source_index, self.target_index)]
        refuse(self.name, np.flatnonzero(outside[0] | outside[1]), "an end outside the node table", "drop it")
        refuse_repeats(self.name, self.sample_id, "links")
        odd = ~np.isin(self.edge_type, self.supervised)
        refuse(
            self.name, self.sample_id[odd], f"an edge type outside {list(self.supervised)}", "list it or drop the row"
        )
        self._validate_labels()
        return self

    def _validate_labels(self) -> None:
        known = ~np.isnan(self.label)
        odd = (known & ~np.isin(self.label, (0, 1))).any(axis=1)
        refuse(self.name, self.sample_id[odd], "a label other than 0 or 1", "recode it")
        of_edge_type = np.repeat(self.edge_type[:, None] == np.array(self.supervised), len(NEGATIVES), axis=1)
        stray = (known & ~of_edge_type).any(axis=1)
        refuse(self.name, self.sample_id[stray], "a label of another edge type's output", "leave it NaN")
        unlike = known.any(axis=1) & ((self.label == 1).any(axis=1) != self.positive)
        refuse(self.name, self.sample_id[unlike], "a label that denies what `positive` says", "mend one of the two")


def link_samples(
    graph: KnowledgeGraph, edge_types: str | Sequence[str], negatives_per_positive: int = 1, seed: int = 0
) -> Links:
    """All edges of the supervised edge types, then for each of them sampled pairs of the same types that are no edge.

    Args:
        graph: A validated graph.
        edge_types: What to predict: an edge type, several, or ``all``.
        negatives_per_positive: Sampled non-edges of each kind (see ``NEGATIVES``) per edge.
        seed: Of the sampling; the negatives of an edge type do not depend on which others are wanted.

    Returns:
        By edge type the edges in the graph's order, matched negatives, uniform ones.

    Raises:
        InputError: An unknown edge type or one named twice, fewer than one negative, or more than can be drawn.
    """
    wanted = _wanted(graph, edge_types)
    if negatives_per_positive < 1:
        raise InputError(f"negatives_per_positive={negatives_per_positive}: must be 1 or more")
    pairs, labels = [], []
    for i, edge_type in enumerate(wanted):
        edges = graph.subset(graph.edge_type == edge_type)
        edge_pairs = np.stack([edges.source_index, edges.target_index], axis=1)
        rng = np.random.default_rng([seed, graph.edge_types.index(edge_type)])
        negatives = draw_negatives(graph, edges, negatives_per_positive * len(edges), rng)
        label = np.full((len(edges) + 2 * len(negatives[0]), len(NEGATIVES) * len(wanted)), np.nan, dtype=np.float32)
        own = label[:, len(NEGATIVES) * i :]  # a view
        own[: len(edges), : len(NEGATIVES)] = 1
        own[len(edges) : len(edges) + len(negatives[0]), 0] = 0
        own[len(edges) + len(negatives[0]) :, 1] = 0
        pairs.append(np.concatenate([edge_pairs, *negatives]))
        labels.append(label)
    source, target = np.concatenate(pairs).T
    label = np.concatenate(labels)
    return Links(
        name=graph.name,
        graph=graph,
        edge_type=np.repeat(wanted, [len(of_one) for of_one in pairs]),
        source_index=np.ascontiguousarray(source),
        target_index=np.ascontiguousarray(target),
        label=label,
        outputs=tuple(f"{edge_type}_{drawn}" for edge_type in wanted for drawn in NEGATIVES),
        positive=(label == 1).any(axis=1),
    )


def _wanted(graph: KnowledgeGraph, edge_types: str | Sequence[str]) -> list[str]:
    """The edge types by name; unknown ones are an error with near matches."""
    if edge_types == "all":
        return list(graph.edge_types)
    wanted = [edge_types] if isinstance(edge_types, str) else list(edge_types)
    for edge_type in wanted:
        if edge_type not in graph.edge_types:
            hint = near(edge_type, graph.edge_types) or list(graph.edge_types)
            raise InputError(f"{graph.name}: no edge type {edge_type!r} with edges; the nearest are {hint}")
    refuse_repeats(graph.name, np.array(wanted, dtype=str), "edge types")
    if not wanted:
        raise InputError(f"{graph.name}: no edge type to predict; name some of {list(graph.edge_types)}, or all")
    return wanted
