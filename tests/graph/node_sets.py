"""Small graphs of every kind and node sets of any size, for the tests of k-hop neighborhoods."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from hypothesis import strategies as st
from torch import Tensor

from torchcell.graph.cell_graph import CellGraph

TYPES = {"gene": 11, "reaction": 6, "metabolite": 4}


def random_graph(seed: int) -> CellGraph:
    """Nodes of three types; undirected and directed relations with a hub, isolated nodes and different densities."""
    rng = np.random.default_rng(seed)
    names = {kind: [f"{kind}{i}" for i in range(n)] for kind, n in TYPES.items()}
    ends = {
        "physical": ("gene", "gene"),
        "regulatory": ("gene", "gene"),
        "catalyses": ("gene", "reaction"),
        "produces": ("reaction", "metabolite"),
        "consumes": ("metabolite", "reaction"),
    }
    matrices = {}
    for relation, (source, target) in ends.items():
        shape = (TYPES[target], TYPES[source])
        edge = rng.random(shape) < rng.choice([0.05, 0.15, 0.3])
        if rng.random() < 0.5:
            edge[:, rng.integers(shape[1])] = True  # a hub
        edge[rng.integers(shape[0]), rng.integers(shape[1])] = True
        if source == target:
            edge[2], edge[:, 2] = False, False  # gene 2 has no gene for a neighbor
            edge[0, 1] = True
            np.fill_diagonal(edge, False)
        if relation == "physical":
            edge |= edge.T
        weight = rng.uniform(0.1, 1.0, shape)
        weight = weight + weight.T if relation == "physical" else weight
        matrices[relation] = sp.csr_matrix(np.where(edge, weight, 0).astype(np.float32))
    further = {kind: names[kind] for kind in ("reaction", "metabolite")}
    directed = [relation for relation in ends if relation != "physical"]
    return CellGraph(names["gene"], matrices, directed, nodes=further, ends=ends)


def unified_edges(graph: CellGraph, relation: str) -> Tensor:
    """Sources and targets of a relation in unified numbering, int64 [2, E]; from SciPy, not from what is tested."""
    matrix = graph.scipy(relation).tocoo()
    source, target = (graph.span(kind).start for kind in graph.ends(relation))
    return torch.from_numpy(np.stack([matrix.col + source, matrix.row + target]).astype(np.int64))


def ragged(sets: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Lists of nodes as node int64 [M] and ptr int64 [B + 1]."""
    node = torch.tensor([node for members in sets for node in members], dtype=torch.int64)
    return node, torch.tensor([0, *np.cumsum([len(members) for members in sets]).tolist()], dtype=torch.int64)


def lists(node: Tensor, ptr: Tensor) -> list[list[int]]:
    """The inverse of ``ragged``."""
    pairs = zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True)
    return [node[a:b].tolist() for a, b in pairs]


node_sets = st.lists(st.lists(st.integers(0, sum(TYPES.values()) - 1), max_size=6, unique=True), max_size=6)
"""Batches of node sets, empty ones and empty batches among them."""
