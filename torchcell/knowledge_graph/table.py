"""A user's knowledge graph as tables of nodes and edges, and requests for links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
def knowledge_graph_file(
    nodes: str | Path,
    edges: str | Path,
    supervised: str | Sequence[str],
    columns: Mapping[str, str] | None = None,
    directed: Sequence[str] = (),
    kinds: Sequence[str] | None = None,
    licences: Sequence[str] | None = None,
    drop_duplicates: bool = False,
    negatives_per_positive: int = 1,
    limit_nodes: int | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Links:
    """Read a graph from two files and sample the candidates of the supervised metaedges.

    Args:
        nodes: Table of ``id, name, kind``; or a ``.pt`` file, see ``hetero_data``, that holds the edges too.
        edges: Table of ``source, metaedge, target`` and, optionally, ``licence``; or the same ``.pt`` file.
        supervised: The metaedges to predict; ``all`` for each of them.
        columns: Internal name -> name in the file, for those that differ, e.g. ``{"licence": "license"}``.
        directed: Metaedges within one kind whose two directions mean different things.
        kinds: The kinds that are expected; by default those in the node table.
        licences: Keep only the edges of these licences.
        drop_duplicates: Leave out rows that repeat an earlier one rather than refuse them; they are counted.
        negatives_per_positive: Sampled non-edges of each kind per edge, see ``links.link_samples``.
        limit_nodes: Keep so many nodes, for trials; see ``graph_selection.best_connected``.
        seed: Of the negatives.
        name: Of the record; by default the node file's.

    Raises:
        InputError: A file or a column that is missing, a repeated node id, an edge to a node that is not in the table,
            a repeated edge, one from a node to itself, a kind without nodes; each names the rows.
    """
    graph = read_knowledge_graph(nodes, edges, columns, directed, kinds, name, drop_duplicates)
    graph = best_connected(connected(of_licences(graph, licences)), limit_nodes)
    return link_samples(graph, supervised, negatives_per_positive, seed)


def read_knowledge_graph(
    nodes: str | Path,
    edges: str | Path,
    columns: Mapping[str, str] | None = None,
    directed: Sequence[str] = (),
    kinds: Sequence[str] | None = None,
    name: str | None = None,
    drop_duplicates: bool = False,
) -> KnowledgeGraph:
    """Read and check a graph whose nodes come sorted by kind, see ``knowledge_graph_file``.

    Files end in ``.csv``, ``.tsv``, ``.parquet`` or, for edges, ``.sif``; ``.gz`` may follow the texts. A ``.pt`` file
    is both.
    """
    own = name or Path(nodes).name.split(".")[0]
    if ENDING in (Path(nodes).suffix, Path(edges).suffix):
        if Path(nodes) != Path(edges) or columns:
            raise InputError(f"a {ENDING} file is a whole graph without columns: give {nodes} as nodes and as edges")
        data = read_hetero_data(located(nodes))
        graph = KnowledgeGraph.from_hetero_data(data, own, directed, kinds or sorted(data.node_types)).by_kind()
        return (graph.without_duplicates() if drop_duplicates else graph).validate()
    columns = dict(columns or {})
    node_table, edge_table = read_table(nodes), _read_edges(Path(edges), columns)
    named = {part: columns.get(part, part) for part in (*NODE_COLUMNS, *EDGE_COLUMNS)}
    for path, table, parts in ((nodes, node_table, NODE_COLUMNS), (edges, edge_table, EDGE_COLUMNS)):
        require_columns(path, table, [named[part] for part in parts])
        for part in (part for part in parts if part in ("id", "name", "source", "target")):
            refuse_spoiled_names(path, named[part], text_cells(table, named[part]))
    order = np.array(text_cells(node_table, named["kind"]), dtype=str).argsort(kind="stable")
    node_table = node_table.iloc[order]
    graph = KnowledgeGraph.from_tables(node_table, edge_table, own, columns, directed, kinds)
    return (graph.without_duplicates() if drop_duplicates else graph).validate()


def _read_edges(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """The edge table; a ``.sif`` file may lack the line that names its columns."""
    if not path.name.removesuffix(".gz").endswith(".sif"):
        return read_table(path)
    return read_table(path, [columns.get(name, name) for name in EDGE_COLUMNS])


def link_notes(metaedge: np.ndarray, source: np.ndarray, target: np.ndarray, spec: KnowledgeGraphSpec) -> Notes:
    """Nodes without an edge in the graph that the model reads, and edge types that it was not trained to predict.

    Args:
        metaedge: Edge type of each candidate [n].
        source: Ids of the sources [n].
        target: Ids of the targets [n].
        spec: Of a model of links.
    """
    graph, n = spec.knowledge_graph, len(metaedge)
    ends = [end.numpy() for pair in graph.edges.values() for end in pair]
    connected = np.array(graph.node_id, dtype=str)[np.unique(np.concatenate(ends)).astype(np.int64)]
    names, owner = np.concatenate([source, target]), np.tile(np.arange(n), 2)
    new = ~np.isin(names, connected)
    return {
        "node without an edge": by_owner("no edge in the graph of training:", names[new], owner[new], n),
        "edge type not trained": unless_known("not trained to predict", metaedge, spec.supervised),
    }


def read_links(path: str, spec: KnowledgeGraphSpec) -> Links:
    """Read ``source, target`` and, needed where several metaedges are supervised, ``metaedge``; one row a candidate.

    Args:
        path: A ``.csv``, ``.tsv`` or ``.parquet`` file.
        spec: Of a model of links, with its graph.

    Returns:
        Candidates without labels, in a graph whose nodes are those of the model and that has no edges.

    Raises:
        InputError: A missing column; ids, metaedges or kinds of ends that the model does not know, with their rows and
            the nearest ones.
    """
    from torchcell.io.tables import read_table, refuse_spoiled_names, require_columns, text_cells

    table, supervised = read_table(path), spec.supervised
    require_columns(path, table, ("source", "target", *(() if len(supervised) == 1 else ("metaedge",))))
    for end in ("source", "target"):
        refuse_spoiled_names(path, end, text_cells(table, end))
    metaedge = np.array(text_cells(table, "metaedge") if "metaedge" in table else [supervised[0]] * len(table))
    odd = ~np.isin(metaedge, supervised)
    if odd.any():
        raise InputError(
            f"{path}: metaedges that the model was not trained to predict: {_rows(metaedge, odd)}; it predicts "
            f"{list(supervised)}"
        )
    graph = _nodes(spec)
    source, target = (np.array(text_cells(table, end)) for end in ("source", "target"))
    ends = [graph.index(names) for names in (source, target)]
    for names, index in zip((source, target), ends, strict=True):
        if (index < 0).any():
            raise InputError(_unknown(path, names, index < 0, graph))
    _refuse_kinds(path, spec.knowledge_graph, graph, metaedge, ends)
    return Links(
        name=str(path),
        graph=graph,
        metaedge=metaedge,
        source_index=ends[0],
        target_index=ends[1],
        label=np.broadcast_to(np.float32(np.nan), (len(table), len(spec.outputs))),
        outputs=spec.outputs,
        positive=np.broadcast_to(np.False_, len(table)),
    )


def _nodes(spec: KnowledgeGraphSpec) -> KnowledgeGraph:
    """The nodes of the model's graph, without edges."""
    plain = spec.knowledge_graph
    none = np.empty(0, dtype="<U1")
    kind = np.repeat(np.array(plain.kinds, dtype=str), np.diff(plain.bounds))
    ids, names = np.array(plain.node_id, dtype=str), np.array(plain.node_name, dtype=str)
    return KnowledgeGraph("knowledge_graph", ids, names, kind, plain.kinds, none, none, none)


def _refuse_kinds(
    path: str, plain: PlainGraph, graph: KnowledgeGraph, metaedge: np.ndarray, ends: list[np.ndarray]
) -> None:
    """Refuse a candidate whose ends are of other kinds than its metaedge joins."""
    wanted = {name: [plain.kinds[kind] for kind in kinds] for name, kinds in plain.ends.items()}
    for place, (end, index) in enumerate(zip(("source", "target"), ends, strict=True)):
        expected = np.array([wanted[name][place] for name in metaedge.tolist()])
        odd = graph.node_kind[index] != expected
        if odd.any():
            said = sorted(set(expected[odd].tolist()))
            raise InputError(
                f"{path}: the {end} must be of the kind {' or '.join(said)}: {_rows(graph.node_id[index], odd)}; "
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
