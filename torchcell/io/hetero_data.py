"""Graphs as ``HeteroData`` of torch-geometric: names of nodes and relations, and a file that runs nothing when read."""

from __future__ import annotations

import pickle
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from torchcell.io.ceiling import refuse_large_values, refuse_torch_bomb
from torchcell.io.errors import InputError, some

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


ENDING = ".pt"
"""Of a file with the dict of a ``HeteroData``."""

REVERSE = "rev_"
"""What torch-geometric's ``ToUndirected`` writes before the relation of the reversed edges."""

HOW = "save it by torch.save(data.to_dict(), PATH)"


class EdgeType(NamedTuple):
    """One relation of a ``HeteroData``.

    Attributes:
        name: The relation alone where no other type has the same; else ``source-relation-target``.
        ends: Node types of source and target.
        source: Positions of the sources among the nodes of their type, int64 [E].
        target: The same of the targets.
        rest: All else that the edges have, e.g. ``edge_weight``.
    """

    name: str
    ends: tuple[str, str]
    source: np.ndarray
    target: np.ndarray
    rest: Any


def write_hetero_data(data: HeteroData, path: str | Path) -> None:
    """Save ``data.to_dict()``: names, numbers and tensors, which load with ``weights_only=True``."""
    import torch

    from torchcell.io.cache import atomic_write  # which knows the records

    with atomic_write(Path(path)) as temporary:
        torch.save(data.to_dict(), temporary)


def read_hetero_data(path: str | Path) -> HeteroData:
    """Load what ``write_hetero_data``, or ``torch.save(data.to_dict(), path)``, has written; no code in it is run.

    Raises:
        InputError: No such file; a pickled object, which could run anything; a dict that is no graph's.
    """
    import torch
    from torch_geometric.data import HeteroData

    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no file of torch; {HOW}")
    refuse_torch_bomb(path, HOW)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{path} holds a pickled object, which is never loaded since it can run code; {HOW}") from None
    except (RuntimeError, EOFError) as error:
        raise InputError(f"{path} is no file of torch ({str(error).splitlines()[0][:100]}); {HOW}") from None
    refuse_large_values(path, content)
    keys = [] if not isinstance(content, dict) else [key for key in content if key != "_global_store"]
    stores = [key for key in keys if isinstance(key, str | tuple) and isinstance(content[key], dict)]
    if not stores or len(stores) < len(keys):
        raise InputError(f"{path} holds no graph, a dict of the node and edge types of a HeteroData; {HOW}")
    return HeteroData.from_dict(content)


def hetero_node_names(data: HeteroData, node_type: str, key: str = "node_id") -> np.ndarray:
    """Texts of one node type [N]: its ``node_id``, or ``<node_type>:<number>`` where that is numbers or missing.

    Args:
        data: The graph.
        node_type: The node type.
        key: Another list of texts beside the nodes.

    Raises:
        InputError: Not one for each node.
    """
    store = data[node_type]
    known = [len(store[one]) for one in ("node_id", key) if one in store]
    size = known[0] if known else int(store.num_nodes or 0)
    if any(length != size for length in known) or ("num_nodes" in store and int(store.num_nodes or 0) != size):
        raise InputError(f"node type {node_type}: {key} has {known[-1]} entries for {store.num_nodes or size} nodes")
    listed = np.asarray(store[key]) if key in store else np.arange(size)
    if listed.dtype.kind in "iu":
        return np.array([f"{node_type}:{number}" for number in listed.tolist()], dtype=str)
    return np.asarray(listed, dtype=str)


def edge_types(data: HeteroData) -> list[EdgeType]:
    """All relations, in order.

    Raises:
        InputError: A relation without ``edge_index``, between types that have no nodes, or to a node that is not there.
    """
    count = Counter(relation for _, relation, _ in data.edge_types)
    found = []
    for source, relation, target in data.edge_types:
        store = data[source, relation, target]
        ends = "-".join((source, relation, target))
        if "edge_index" not in store:
            raise InputError(f"edge type {ends} has no edge_index, int64 [2, E]: give sources and targets")
        strange = [node_type for node_type in (source, target) if node_type not in data.node_types]
        if strange:
            raise InputError(f"edge type {ends} joins node types without nodes: {some(strange)}")
        index = store.edge_index.cpu().numpy().astype(np.int64)
        for node_type, positions in zip((source, target), index, strict=True):
            outside = positions[(positions < 0) | (positions >= len(hetero_node_names(data, node_type)))]
            if len(outside):
                raise InputError(
                    f"edge type {ends}: no such nodes of type {node_type}: {some(np.unique(outside).tolist())}"
                )
        name = relation if count[relation] == 1 else ends
        found.append(EdgeType(name, (source, target), index[0], index[1], store))
    return found


def without_reverse(types: list[EdgeType]) -> tuple[list[EdgeType], dict[str, int]]:
    """The relations but those that hold the edges of another one backwards, and how many edges these have.

    ``ToUndirected`` adds such relations for message passing; as facts they say nothing new.
    """
    kept, dropped = [], {}
    for one in types:
        forward = [two for two in types if one.name == f"{REVERSE}{two.name}" and one.ends == two.ends[::-1]]
        backwards = bool(forward) and _pairs(one.target, one.source) == _pairs(forward[0].source, forward[0].target)
        if backwards:
            dropped[f"{one.name}: reverse edges"] = len(one.source)
        else:
            kept.append(one)
    return kept, dropped


def _pairs(source: np.ndarray, target: np.ndarray) -> Counter[tuple[int, int]]:
    return Counter(zip(source.tolist(), target.tolist(), strict=True))
