"""A user's knowledge graph as tables of nodes and edges, and requests for links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchcell.core.prediction_notes import Notes, by_owner, unless_known
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError, near, some
from torchcell.io.hetero_data import ENDING, read_hetero_data
from torchcell.io.paths import located
from torchcell.io.tables import read_table, refuse_spoiled_names, require_columns, text_cells
from torchcell.knowledge_graph.record import (
    EDGE_COLUMNS,
    FORMER,
    NODE_COLUMNS,
    KnowledgeGraph,
    Links,
    best_connected,
    connected,
    link_samples,
    of_licences,
)
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec, PlainGraph

if TYPE_CHECKING:
    import pandas as pd


@configurable
@dataclass(frozen=True)
class GraphOptions:
    """What the rows of two tables mean, and which of them count.

    Attributes:
        directed: Edge types within one node type whose two directions mean different things.
        node_types: The node types that are expected; none: those in the node table.
        licences: Keep only the edges of these licences; needs the column ``licence``. None: keep all.
        drop_duplicates: Leave out rows that repeat an earlier one rather than refuse them; they are counted.
        name: Of the record; none: the node file's.
    """

    directed: Sequence[str] = ()
    node_types: Sequence[str] | None = None
    licences: Sequence[str] | None = None
    drop_duplicates: bool = False
    name: str | None = None


@configurable
def knowledge_graph_file(
    nodes: str | Path,
    edges: str | Path,
    supervised: str | Sequence[str],
    columns: Mapping[str, str] | None = None,
    graph: GraphOptions = GraphOptions(),
    negatives_per_positive: int = 1,
    limit_nodes: int | None = None,
    seed: int = 0,
) -> Links:
    """Read a graph from two files and sample the candidates of the supervised edge types.

    Args:
        nodes: Table of ``id, name, type``; or a ``.pt`` file, see ``hetero_data``, that holds the edges too.
        edges: Table of ``source, edge_type, target`` and, optionally, ``licence``; or the same ``.pt`` file.
        supervised: The edge types to predict; ``all`` for each of them.
        columns: Internal name -> name in the file, for those that differ, e.g. ``{"type": "kind"}``.
        graph: What the rows mean, and which of them count.
        negatives_per_positive: Sampled non-edges of each kind per edge, see ``link_samples``.
        limit_nodes: Keep so many nodes, for trials; see ``best_connected``.
        seed: Of the negatives.

    Raises:
        InputError: A file or a column that is missing, a repeated node id, an edge to a node that is not in the table,
            a repeated edge, one from a node to itself, a node type without nodes; each names the rows.
    """
    whole = read_knowledge_graph(nodes, edges, columns, graph)
    return link_samples(
        best_connected(connected(of_licences(whole, graph.licences)), limit_nodes),
        supervised,
        negatives_per_positive,
        seed,
    )


def read_knowledge_graph(
    nodes: str | Path,
    edges: str | Path,
    columns: Mapping[str, str] | None = None,
    options: GraphOptions = GraphOptions(),
) -> KnowledgeGraph:
    """Read and check a graph, all its edges and its nodes sorted by type, see ``knowledge_graph_file``.

    Files end in ``.csv``, ``.tsv``, ``.parquet`` or, for edges, ``.sif``; ``.gz`` may follow the texts. A ``.pt`` file
    is both.
    """
    name, node_types = options.name or Path(nodes).name.split(".")[0], options.node_types
    if ENDING in (Path(nodes).suffix, Path(edges).suffix):
        if Path(nodes) != Path(edges) or columns:
            raise InputError(f"a {ENDING} file is a whole graph without columns: give {nodes} as nodes and as edges")
        data = read_hetero_data(located(nodes))
        types = node_types or sorted(data.node_types)
        graph = KnowledgeGraph.from_hetero_data(data, name, options.directed, types).by_type()
        return (graph.without_duplicates() if options.drop_duplicates else graph).validate()
    columns = dict(columns or {})
    node_table, edge_table = read_table(nodes), _read_edges(Path(edges), columns)
    named = {part: columns.get(part, part) for part in (*NODE_COLUMNS, *EDGE_COLUMNS)}
    _refuse_former([(nodes, node_table, "type"), (edges, edge_table, "edge_type")], named)
    for path, table, parts in ((nodes, node_table, NODE_COLUMNS), (edges, edge_table, EDGE_COLUMNS)):
        require_columns(path, table, [named[part] for part in parts])
        for part in (part for part in parts if part in ("id", "name", "source", "target")):
            refuse_spoiled_names(path, named[part], text_cells(table, named[part]))
    order = np.array(text_cells(node_table, named["type"]), dtype=str).argsort(kind="stable")
    node_table = node_table.iloc[order]
    graph = KnowledgeGraph.from_tables(node_table, edge_table, name, columns, options.directed, node_types)
    return (graph.without_duplicates() if options.drop_duplicates else graph).validate()


def _refuse_former(tables: Sequence[tuple[str | Path, pd.DataFrame, str]], named: Mapping[str, str]) -> None:
    """Refuse tables that name the column of types as torchcell 0.1 did, with the key that reads them."""
    wrong = [
        (path, part)
        for path, table, part in tables
        if named[part] == part and part not in table and FORMER[part] in table
    ]
    if wrong:
        said = "; ".join(f"{path} has no column {part!r}, but {FORMER[part]!r}" for path, part in wrong)
        columns = ", ".join(f"{part}: {FORMER[part]}" for _, part in wrong)
        raise InputError(f"{said}: as torchcell 0.1 called it. Set 'data.record.columns={{{columns}}}' to read it so")


def _read_edges(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """The edge table; a ``.sif`` file may lack the line that names its columns."""
    if not path.name.removesuffix(".gz").endswith(".sif"):
        return read_table(path)
    names = [columns.get(name, name) for name in EDGE_COLUMNS]
    table = read_table(path, names)
    if "edge_type" in names and text_cells(table.head(1), "edge_type") == [FORMER["edge_type"]]:
        return read_table(path)  # the first row is a header, which the caller refuses with the key to set
    return table


def link_notes(edge_type: np.ndarray, source: np.ndarray, target: np.ndarray, spec: KnowledgeGraphSpec) -> Notes:
    """Nodes without an edge in the graph that the model reads, and edge types that it was not trained to predict.

    Args:
        edge_type: Edge type of each candidate [n].
        source: Ids of the sources [n].
        target: Ids of the targets [n].
        spec: Of a model of links.
    """
    graph, n = spec.knowledge_graph, len(edge_type)
    ends = [end.numpy() for pair in graph.edges.values() for end in pair]
    connected = np.array(graph.node_id, dtype=str)[np.unique(np.concatenate(ends)).astype(np.int64)]
    names, owner = np.concatenate([source, target]), np.tile(np.arange(n), 2)
    new = ~np.isin(names, connected)
    return {
        "node without an edge": by_owner("no edge in the graph of training:", names[new], owner[new], n),
        "edge type not trained": unless_known("not trained to predict", edge_type, spec.supervised),
    }


def read_links(path: str, spec: KnowledgeGraphSpec) -> Links:
    """Read ``source, target`` and, needed where several edge types are supervised, ``edge_type``; one row a candidate.

    Args:
        path: A ``.csv``, ``.tsv`` or ``.parquet`` file.
        spec: Of a model of links, with its graph.

    Returns:
        Candidates without labels, in a graph whose nodes are those of the model and that has no edges.

    Raises:
        InputError: A missing column; ids, edge types or node types of ends that the model does not know, with their
            rows and the nearest ones.
    """
    from torchcell.io.tables import read_table, refuse_spoiled_names, require_columns, text_cells

    table, supervised = read_table(path), spec.supervised
    if FORMER["edge_type"] in table and "edge_type" not in table:
        raise InputError(f"{path}: the column 'metaedge' is called 'edge_type' since torchcell 0.2; rename it")
    require_columns(path, table, ("source", "target", *(() if len(supervised) == 1 else ("edge_type",))))
    for end in ("source", "target"):
        refuse_spoiled_names(path, end, text_cells(table, end))
    edge_type = np.array(text_cells(table, "edge_type") if "edge_type" in table else [supervised[0]] * len(table))
    odd = ~np.isin(edge_type, supervised)
    if odd.any():
        raise InputError(
            f"{path}: edge types that the model was not trained to predict: {_rows(edge_type, odd)}; it predicts "
            f"{list(supervised)}"
        )
    graph = _nodes(spec)
    source, target = (np.array(text_cells(table, end)) for end in ("source", "target"))
    ends = [graph.index(names) for names in (source, target)]
    for names, index in zip((source, target), ends, strict=True):
        if (index < 0).any():
            raise InputError(_unknown(path, names, index < 0, graph))
    _refuse_types(path, spec.knowledge_graph, graph, edge_type, ends)
    return Links(
        name=str(path),
        graph=graph,
        edge_type=edge_type,
        source_index=ends[0],
        target_index=ends[1],
        label=np.broadcast_to(np.float32(np.nan), (len(table), len(spec.outputs))),
        outputs=spec.outputs,
        positive=np.broadcast_to(np.False_, len(table)),
    )


def pairs_of(spec: KnowledgeGraphSpec, edge_type: str, source_P: np.ndarray, target_P: np.ndarray) -> Links:
    """P pairs of nodes as candidates without labels, as ``read_links`` makes them of a file.

    Args:
        spec: Of a model of links, with its graph.
        edge_type: Of all pairs.
        source_P: Positions among the nodes of the spec's knowledge graph.
        target_P: Likewise.
    """
    graph, ids = _nodes(spec), np.array(spec.knowledge_graph.node_id, dtype=str)
    return Links(
        name="pairs",
        graph=graph,
        edge_type=np.full(len(source_P), edge_type),
        source_index=graph.index(ids[source_P]),
        target_index=graph.index(ids[target_P]),
        label=np.broadcast_to(np.float32(np.nan), (len(source_P), len(spec.outputs))),
        outputs=spec.outputs,
        positive=np.broadcast_to(np.False_, len(source_P)),
    )


def _nodes(spec: KnowledgeGraphSpec) -> KnowledgeGraph:
    """The nodes of the model's graph, without edges."""
    plain = spec.knowledge_graph
    none = np.empty(0, dtype="<U1")
    node_type = np.repeat(np.array(plain.node_types, dtype=str), np.diff(plain.bounds))
    ids, names = np.array(plain.node_id, dtype=str), np.array(plain.node_name, dtype=str)
    return KnowledgeGraph("knowledge_graph", ids, names, node_type, plain.node_types, none, none, none)


def _refuse_types(
    path: str, plain: PlainGraph, graph: KnowledgeGraph, edge_type: np.ndarray, ends: list[np.ndarray]
) -> None:
    """Refuse a candidate whose ends are of other node types than its edge type joins."""
    wanted = {
        name: [plain.node_types[node_type] for node_type in node_types] for name, node_types in plain.ends.items()
    }
    for place, (end, index) in enumerate(zip(("source", "target"), ends, strict=True)):
        expected = np.array([wanted[name][place] for name in edge_type.tolist()])
        odd = graph.node_type[index] != expected
        if odd.any():
            said = sorted(set(expected[odd].tolist()))
            raise InputError(
                f"{path}: the {end} must be of the node type {' or '.join(said)}: {_rows(graph.node_id[index], odd)}; "
                "exchange source and target, or correct the ids"
            )


def _unknown(path: str, names: np.ndarray, odd: np.ndarray, graph: KnowledgeGraph) -> str:
    """Name the unknown ids with their rows, and the nearest known ids; a node's name leads to its id."""
    by_name = {name.lower(): node for node, name in zip(graph.node_id.tolist(), graph.node_name.tolist(), strict=True)}
    hints = []
    for name in list(dict.fromkeys(names[odd].tolist()))[:3]:
        named = [by_name[hit.lower()] for hit in near(name, list(by_name))]
        hits = ([by_name[name.lower()]] if name.lower() in by_name else near(name, graph.node_id.tolist())) or named
        hints += [f"{name} -> {' / '.join(hits)}"] if hits else []
    meant = f"; did you mean {', '.join(hints)}?" if hints else ""
    return f"{path}: ids that the model's graph does not have: {_rows(names, odd)}{meant} Correct or drop the rows"


def _rows(names: np.ndarray, odd: np.ndarray) -> str:
    """The first few values at fault with their rows in the file, the header being row 1."""
    return some(f"{names[i]} (row {i + 2})" for i in np.flatnonzero(odd))
