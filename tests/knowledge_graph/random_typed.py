"""Small knowledge graphs for tests: nodes of several types out of order, edge types of every sort."""

from __future__ import annotations

import numpy as np

from torchcell.knowledge_graph.record import KnowledgeGraph

ENDS = {
    "CtD": ("Compound", "Disease"),
    "DaG": ("Disease", "Gene"),
    "GiG": ("Gene", "Gene"),
    "Gr>G": ("Gene", "Gene"),
    "CrC": ("Compound", "Compound"),
}


def knowledge_graph(
    seed: int = 0, sizes: tuple[int, int, int] = (6, 4, 9), density: float = 0.3, without: tuple[str, ...] = ()
) -> KnowledgeGraph:
    """Compounds, diseases and genes in a random order; ``CrC`` and ``GiG`` are symmetric, written either way round."""
    rng = np.random.default_rng(seed)
    node_types = ("Compound", "Disease", "Gene")
    node_type = rng.permutation(np.repeat(node_types, sizes))
    node_id = np.array([f"{name}::{i}" for i, name in enumerate(node_type)])
    source, edge_type, target = [], [], []
    for name, (a, b) in ENDS.items():
        if name in without:
            continue
        for i in np.flatnonzero(node_type == a):
            for j in np.flatnonzero(node_type == b):
                if i == j or (a == b and name != "Gr>G" and i > j) or rng.random() > density:
                    continue
                first, second = (j, i) if a == b and name != "Gr>G" and rng.random() < 0.5 else (i, j)
                source.append(node_id[first])
                edge_type.append(name)
                target.append(node_id[second])
    shuffled = rng.permutation(len(source))
    columns = (np.array(each, dtype="U16")[shuffled] for each in (source, edge_type, target))
    directed = () if "Gr>G" in without else ("Gr>G",)
    return KnowledgeGraph("toy", node_id, np.char.lower(node_id), node_type, node_types, *columns, directed=directed)
