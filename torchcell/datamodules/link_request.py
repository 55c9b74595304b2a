"""The candidate edges that a user asks ``predict`` for, by node id."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchcell.data.errors import InputError, near, some
from torchcell.data.knowledge_graph import KnowledgeGraph
from torchcell.data.links import Links
from torchcell.datamodules.spec import Spec


def read_links(path: str, spec: Spec) -> Links:
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
    from torchcell.data.tables import read_table, refuse_spoiled_names, require_columns, text_cells

    table, supervised = read_table(path), tuple(spec.extras["supervised"])
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
    _refuse_kinds(path, spec.extras["knowledge_graph"], graph, metaedge, ends)
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


def _nodes(spec: Spec) -> KnowledgeGraph:
    """The nodes of the model's graph, without edges."""
    plain = spec.extras["knowledge_graph"]
    none = np.empty(0, dtype="<U1")
    kind = np.repeat(np.array(plain["kinds"], dtype=str), np.diff(plain["bounds"]))
    ids, names = (np.array(plain[key], dtype=str) for key in ("node_id", "node_name"))
    return KnowledgeGraph("knowledge_graph", ids, names, kind, tuple(plain["kinds"]), none, none, none)


def _refuse_kinds(
    path: str, plain: dict[str, Any], graph: KnowledgeGraph, metaedge: np.ndarray, ends: list[np.ndarray]
) -> None:
    """Refuse a candidate whose ends are of other kinds than its metaedge joins."""
    wanted = {name: [plain["kinds"][kind] for kind in kinds] for name, kinds in plain["ends"].items()}
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
