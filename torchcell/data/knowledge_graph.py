"""``KnowledgeGraph``: typed nodes and typed edges with names; its samples are its edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from torchcell.data.checks import as_positions, column, refuse, refuse_repeats, refuse_shapes, texts
from torchcell.data.errors import InputError, near, some
from torchcell.data.fingerprint import record_fingerprint

if TYPE_CHECKING:
    import pandas as pd

NODE_COLUMNS: tuple[str, ...] = ("id", "name", "kind")
EDGE_COLUMNS: tuple[str, ...] = ("source", "metaedge", "target")
LICENCE = "licence"
"""Column of the edge table that may be left out."""
DROP = ", or leave out rows that repeat an earlier one: data.record.drop_duplicates=true"


@dataclass(frozen=True, eq=False)
class KnowledgeGraph:
    """N nodes of several kinds, E edges of several metaedges, each between two kinds.

    Attributes:
        name: Short name, e.g. ``hetionet_core``.
        node_id: Unique ids [N].
        node_name: Names for people [N].
        node_kind: Kind of each node [N].
        kinds: The kinds there are, in order.
        source_id: Node id at the start of each edge [E].
        metaedge: Type of each edge [E].
        target_id: Node id at the end of each edge [E].
        directed: Metaedges within one kind whose two directions mean different things, e.g. ``Gr>G``; of
            any other metaedge A-B and B-A are one edge.
        licence: Licence of each edge [E], where the source tells; or none at all.
        lost: What parsing left out and how many of each.
    """

    name: str
    node_id: np.ndarray
    node_name: np.ndarray
    node_kind: np.ndarray
    kinds: tuple[str, ...]
    source_id: np.ndarray
    metaedge: np.ndarray
    target_id: np.ndarray
    directed: tuple[str, ...] = ()
    licence: np.ndarray | None = None
    lost: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.metaedge)

    @cached_property
    def sample_id(self) -> np.ndarray:
        """``source|metaedge|target`` of each edge [E]."""
        return link_ids(self.source_id, self.metaedge, self.target_id)

    @property
    def target(self) -> np.ndarray:
        """All ones, float32 [E, 1]: every edge of the graph is there; see ``links.link_samples``."""
        return np.ones((len(self), 1), dtype=np.float32)

    @property
    def metaedges(self) -> tuple[str, ...]:
        """The types of edges, sorted."""
        return tuple(self.ends)

    @cached_property
    def ends(self) -> dict[str, tuple[str, str]]:
        """Kinds of source and target of each metaedge, by sorted name."""
        names, first = np.unique(self.metaedge, return_index=True)
        kinds = (self.node_kind[at[first]].tolist() for at in (self.source_index, self.target_index))
        return dict(zip(names.tolist(), zip(*kinds, strict=True), strict=True))

    @cached_property
    def symmetric(self) -> frozenset[str]:
        """Metaedges within one kind whose two directions mean the same."""
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
        edges = {name: getattr(self, name)[at] for name in ("source_id", "metaedge", "target_id")}
        licence = None if self.licence is None else self.licence[at]
        part = replace(self, **edges, licence=licence)
        for name in ("source_index", "target_index"):  # the nodes are the same: what is known need not be looked up
            if name in vars(self):
                vars(part)[name] = vars(self)[name][at]
        return part

    def without_duplicates(self) -> KnowledgeGraph:
        """The graph without rows that repeat an earlier one, counted in ``lost``; ``validate`` it afterwards.

        A node is repeated with the same name and kind, an edge with the same licence; of a metaedge that is not
        ``directed``, within one kind, A-B and B-A are one edge. What is repeated otherwise stays, and ``validate``
        refuses it.
        """
        import pandas as pd

        nodes = pd.DataFrame({"id": self.node_id, "name": self.node_name, "kind": self.node_kind})
        kind = dict(zip(self.node_id.tolist(), self.node_kind.tolist(), strict=True))
        between = [[kind.get(end) for end in ids.tolist()] for ids in (self.source_id, self.target_id)]
        one_way = np.isin(self.metaedge, self.directed) | (np.array(between[0]) != np.array(between[1]))
        as_it_is = one_way | (self.source_id < self.target_id)
        low = np.where(as_it_is, self.source_id, self.target_id)
        high = np.where(as_it_is, self.target_id, self.source_id)
        edges = pd.DataFrame({"low": low, "metaedge": self.metaedge, "high": high})
        if self.licence is not None:
            edges["licence"] = self.licence
        node, edge = (~table.duplicated().to_numpy() for table in (nodes, edges))
        counts = {"repeated nodes": int((~node).sum()), "repeated edges": int((~edge).sum())}
        of_nodes = {name: getattr(self, name)[node] for name in ("node_id", "node_name", "node_kind")}
        lost = {**self.lost, **{what: n for what, n in counts.items() if n}}
        return replace(self.subset(edge), **of_nodes, lost=lost)

    def fingerprint(self) -> str:
        """A hash over all nodes and edges, see ``torchcell.data.fingerprint``; not over ``name`` and ``lost``."""
        return record_fingerprint(self)

    def validate(self) -> KnowledgeGraph:
        """Return self, or raise one ``InputError`` that names the offending nodes or edges."""
        n, e = (len(self.node_id),), (len(self),)
        shapes = {"node_name": n, "node_kind": n, "source_id": e, "target_id": e, "licence": e}
        refuse_shapes(self.name, vars(self), shapes)
        refuse_repeats(self.name, self.node_id, "node ids", f"make them unique{DROP}")
        refuse_repeats(self.name, np.array(self.kinds), "kinds")
        odd = ~np.isin(self.node_kind, self.kinds)
        refuse(self.name, self.node_id[odd], "a kind that is not listed", f"list it beside {list(self.kinds)}")
        empty = [kind for kind in self.kinds if kind not in set(self.node_kind.tolist())]
        if empty:
            raise InputError(f"{self.name}: kinds without nodes: {some(empty)}; leave them out or add nodes")
        for end, at in ((self.source_id, self.source_index), (self.target_id, self.target_index)):
            missing = np.unique(end[at < 0])
            refuse(self.name, self.sample_id[at < 0], f"an end outside the node table ({some(missing)})", "add it")
        loops = self.sample_id[self.source_id == self.target_id]
        refuse(self.name, loops, "an edge from a node to itself", "drop it")
        self._validate_metaedges()
        return self

    def _validate_metaedges(self) -> None:
        ends = np.stack([self.metaedge, *(self.node_kind[i] for i in (self.source_index, self.target_index))])
        first: dict[str, tuple[str, str]] = {}
        for metaedge, source, target in np.unique(ends, axis=1).T.tolist():
            if first.setdefault(metaedge, (source, target)) != (source, target):
                both = f"{'-'.join(first[metaedge])} and {source}-{target}"
                raise InputError(f"{self.name}: metaedge {metaedge!r} joins {both}; give each its own name")
        unknown = [name for name in self.directed if name not in first]
        if unknown and len(self):
            raise InputError(f"{self.name}: directed metaedges without edges: {some(unknown)}; mend the list")
        one_way = np.isin(self.metaedge, self.directed)
        low = np.where(one_way, self.source_index, np.minimum(self.source_index, self.target_index))
        high = np.where(one_way, self.target_index, np.maximum(self.source_index, self.target_index))
        _, code = np.unique(self.metaedge, return_inverse=True)
        key = (code * len(self.node_id) + low) * len(self.node_id) + high
        _, kept = np.unique(key, return_index=True)
        repeated = np.delete(self.sample_id, kept)
        refuse(self.name, repeated, "an edge that an earlier row has too, in either direction", f"drop it{DROP}")

    def to_tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The node table ``id, name, kind`` and the edge table ``source, metaedge, target``."""
        import pandas as pd

        nodes = zip(NODE_COLUMNS, (self.node_id, self.node_name, self.node_kind), strict=True)
        edges = zip(EDGE_COLUMNS, (self.source_id, self.metaedge, self.target_id), strict=True)
        return pd.DataFrame(dict(nodes)), pd.DataFrame(dict(edges))

    @classmethod
    def from_tables(
        cls,
        nodes: pd.DataFrame,
        edges: pd.DataFrame,
        name: str = "knowledge_graph",
        columns: Mapping[str, str] | None = None,
        directed: Sequence[str] = (),
        kinds: Sequence[str] | None = None,
    ) -> KnowledgeGraph:
        """Read a record from two tables; ``validate`` it afterwards.

        Args:
            nodes: One row a node, with the columns ``id, name, kind``.
            edges: One row an edge, with the columns ``source, metaedge, target`` and, optionally, ``licence``.
            name: Name of the record.
            columns: Internal name -> name in the tables, for those that differ.
            directed: Metaedges within one kind whose directions mean different things.
            kinds: The kinds that are expected, in order; by default those of the nodes, sorted.

        Raises:
            InputError: A missing column, a key of ``columns`` that is no internal name.
        """
        columns = columns or {}
        known = [*NODE_COLUMNS, *EDGE_COLUMNS, LICENCE]
        for key in columns:
            if key not in known:
                raise InputError(f"{name}: no internal column {key!r}; the nearest are {near(key, known) or known}")
        node_id, node_name, kind = (texts(column(name, nodes, columns.get(c, c))) for c in NODE_COLUMNS)
        source, metaedge, target = (texts(column(name, edges, columns.get(c, c))) for c in EDGE_COLUMNS)
        ordered = tuple(np.unique(kind).tolist()) if kinds is None else tuple(kinds)
        told = columns.get(LICENCE, LICENCE)
        licence = texts(column(name, edges, told)) if told in edges or LICENCE in columns else None
        return cls(name, node_id, node_name, kind, ordered, source, metaedge, target, tuple(directed), licence)


def link_ids(source: np.ndarray, metaedge: np.ndarray | str, target: np.ndarray) -> np.ndarray:
    """Names of links, ``source|metaedge|target``, [n]."""
    between = np.char.add("|", np.char.add(metaedge, "|"))
    return np.char.add(np.char.add(source, between), target)
