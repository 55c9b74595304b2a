"""A synthetic knowledge graph of Hetionet's size: for measuring speed and memory only, there is nothing to learn in it.

Who is joined to whom is drawn without a look at anything. For planted communities and paths see
``torchcell.knowledge_graph.simulate``.
"""

from __future__ import annotations

import numpy as np

from torchcell.io.errors import InputError
from torchcell.knowledge_graph.record import KnowledgeGraph

NODES = {
    "Anatomy": 402,
    "Biological Process": 11_381,
    "Cellular Component": 1_391,
    "Compound": 1_552,
    "Disease": 137,
    "Gene": 20_945,
    "Molecular Function": 2_884,
    "Pathway": 1_822,
    "Pharmacologic Class": 345,
    "Side Effect": 5_734,
    "Symptom": 438,
}
"""Nodes of each type in Hetionet v1.0: 47,031."""
EDGES = {
    "AdG": ("Anatomy", "Gene", 102_240),
    "AeG": ("Anatomy", "Gene", 526_407),
    "AuG": ("Anatomy", "Gene", 97_848),
    "CbG": ("Compound", "Gene", 11_571),
    "CcSE": ("Compound", "Side Effect", 138_944),
    "CdG": ("Compound", "Gene", 21_102),
    "CpD": ("Compound", "Disease", 390),
    "CrC": ("Compound", "Compound", 6_486),
    "CtD": ("Compound", "Disease", 755),
    "CuG": ("Compound", "Gene", 18_756),
    "DaG": ("Disease", "Gene", 12_623),
    "DdG": ("Disease", "Gene", 7_623),
    "DlA": ("Disease", "Anatomy", 3_602),
    "DpS": ("Disease", "Symptom", 3_357),
    "DrD": ("Disease", "Disease", 543),
    "DuG": ("Disease", "Gene", 7_731),
    "GcG": ("Gene", "Gene", 61_690),
    "GiG": ("Gene", "Gene", 147_164),
    "GpBP": ("Gene", "Biological Process", 559_504),
    "GpCC": ("Gene", "Cellular Component", 73_566),
    "GpMF": ("Gene", "Molecular Function", 97_222),
    "GpPW": ("Gene", "Pathway", 84_372),
    "Gr>G": ("Gene", "Gene", 265_672),
    "PCiC": ("Pharmacologic Class", "Compound", 1_029),
}
"""Node types of source and target and number of edges of each edge type there: 2,250,197."""
DIRECTED = ("Gr>G",)
TAIL = 0.6
"""The chance to be an end falls with a node's rank to this power."""
FLEXIBLE = 200
"""Draws of a round are this many at least, so that small graphs need few rounds."""


def synthetic_knowledge_graph(scale: float | int = 1.0, seed: int = 0) -> KnowledgeGraph:
    """Random edges of heavy-tailed degree between the node types of Hetionet: for measuring speed only.

    THERE IS NOTHING TO LEARN HERE. Both ends of an edge are drawn in proportion to an expected degree, and half of the
    tries evenly, so that dense edge types of small node types are filled; what stands already is drawn again. Same
    arguments, same bytes. The record is not validated: that would take longer than drawing it.

    Args:
        scale: Share of the nodes of each type and of the edges of each edge type, rounded; 0.1 for a tenth.
        seed: Seed of everything that is drawn.

    Raises:
        InputError: A scale at which an edge type has more edges than pairs, or a node type no node.
    """
    rng = np.random.default_rng(seed)
    sizes = {node_type: round(scale * n) for node_type, n in NODES.items()}
    start = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    share = {node_type: _shares(n, rng) for node_type, n in sizes.items()}
    sources, edge_types, targets = [], [], []
    for name, (source, target, full) in EDGES.items():
        n, symmetric = round(scale * full), source == target and name not in DIRECTED
        pairs = sizes[source] * sizes[target]
        if 3 * n > 2 * pairs // (2 if symmetric else 1):
            raise InputError(f"at scale {scale} {name} has {n:,} edges for {pairs:,} pairs; take a larger scale")
        first, second = _draw(share[source], share[target], n, source == target, symmetric, rng)
        sources.append(first + start[source])
        targets.append(second + start[target])
        edge_types.append(np.repeat(name, n))
    node_id = np.concatenate([[f"{node_type}::{i:05d}" for i in range(n)] for node_type, n in sizes.items()])
    return KnowledgeGraph(
        name="synthetic_knowledge_graph",
        node_id=node_id,
        node_name=node_id,
        node_type=np.repeat(list(sizes), list(sizes.values())),
        node_types=tuple(sizes),
        source_id=node_id[np.concatenate(sources)],
        edge_type=np.concatenate(edge_types),
        target_id=node_id[np.concatenate(targets)],
        directed=DIRECTED,
    )


def _shares(n: int, rng: np.random.Generator) -> np.ndarray:
    """Cumulative chance of each node to be an end, [n]; it falls with a random rank to the power TAIL."""
    weight = (1.0 + rng.permutation(n)) ** -TAIL
    return np.cumsum(weight / weight.sum())


def _draw(
    source: np.ndarray, target: np.ndarray, n: int, same: bool, symmetric: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``n`` different edges, int64 [n] each; no loop where both ends are of one type, one direction if symmetric."""
    drawn = np.empty(0, dtype=np.int64)
    while len(drawn) < n:
        size = 2 * (n - len(drawn)) + FLEXIBLE
        even = rng.random(size) < 0.5
        ends = []
        for cumulative in (source, target):
            ranked = np.searchsorted(cumulative[:-1], rng.random(size))
            ends.append(np.where(even, rng.integers(0, len(cumulative), size), ranked))
        first, second = (np.minimum(*ends), np.maximum(*ends)) if symmetric else ends
        key = (first * len(target) + second)[(first != second) | (not same)]
        drawn = np.concatenate([drawn, rng.permutation(np.setdiff1d(key, drawn))[: n - len(drawn)]])
    return np.divmod(np.sort(drawn), len(target))
