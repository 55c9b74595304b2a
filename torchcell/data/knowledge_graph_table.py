"""A user's knowledge graph: a node table and an edge table, by column names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchcell.data.graph_selection import best_connected, connected, of_licences
from torchcell.data.knowledge_graph import EDGE_COLUMNS, NODE_COLUMNS, KnowledgeGraph
from torchcell.data.links import Links, link_samples
from torchcell.data.tables import read_table, refuse_spoiled_names, require_columns, text_cells

if TYPE_CHECKING:
    import pandas as pd


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
        nodes: Table of ``id, name, kind``.
        edges: Table of ``source, metaedge, target`` and, optionally, ``licence``.
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

    Files end in ``.csv``, ``.tsv``, ``.parquet`` or, for edges, ``.sif``; ``.gz`` may follow the texts.
    """
    columns = dict(columns or {})
    node_table, edge_table = read_table(nodes), _read_edges(Path(edges), columns)
    named = {part: columns.get(part, part) for part in (*NODE_COLUMNS, *EDGE_COLUMNS)}
    for path, table, parts in ((nodes, node_table, NODE_COLUMNS), (edges, edge_table, EDGE_COLUMNS)):
        require_columns(path, table, [named[part] for part in parts])
        for part in (part for part in parts if part in ("id", "name", "source", "target")):
            refuse_spoiled_names(path, named[part], text_cells(table, named[part]))
    order = np.array(text_cells(node_table, named["kind"]), dtype=str).argsort(kind="stable")
    node_table = node_table.iloc[order]
    own = name or Path(nodes).name.split(".")[0]
    graph = KnowledgeGraph.from_tables(node_table, edge_table, own, columns, directed, kinds)
    return (graph.without_duplicates() if drop_duplicates else graph).validate()


def _read_edges(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """The edge table; a ``.sif`` file may lack the line that names its columns."""
    if not path.name.removesuffix(".gz").endswith(".sif"):
        return read_table(path)
    return read_table(path, [columns.get(name, name) for name in EDGE_COLUMNS])
