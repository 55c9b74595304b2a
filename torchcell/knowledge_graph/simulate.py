"""Simulated knowledge graph: communities of genes, and drug -> gene -> disease paths through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.record import KnowledgeGraph, Links, link_samples


@dataclass(frozen=True, eq=False)
class SimulatedGraph:
    """A graph and the community of each of its nodes, int64 [N]."""

    graph: KnowledgeGraph
    community: np.ndarray


def simulate_knowledge_graph(
    n_genes: int = 120,
    n_compounds: int = 40,
    n_diseases: int = 20,
    n_communities: int = 5,
    noise: float | int = 0.1,
    seed: int = 0,
) -> SimulatedGraph:
    """Plant communities in compounds, genes and diseases; edges mostly stay within a community.

    ``GiG`` joins genes, ``CbG`` compounds to genes, ``DaG`` diseases to genes. ``CtD`` joins compounds to
    diseases only where a path compound - gene - disease exists within their community, but for the noise.

    Args:
        n_genes: Nodes of type ``Gene``.
        n_compounds: Nodes of type ``Compound``.
        n_diseases: Nodes of type ``Disease``.
        n_communities: Communities; the nodes of each type are assigned to them in turn.
        noise: Share of the edges of each edge type that pay no heed to communities.
        seed: Seed of everything that is drawn; same arguments, same bytes.

    Raises:
        InputError: A node type with fewer nodes than communities, a noise outside 0 to 1.
    """
    sizes = {"Compound": n_compounds, "Gene": n_genes, "Disease": n_diseases}
    if min(sizes.values()) < n_communities or not 0 <= noise < 1:
        raise InputError(f"{n_communities} communities and noise {noise} do not fit nodes {sizes}")
    rng = np.random.default_rng(seed)
    node_type = np.repeat(list(sizes), list(sizes.values()))
    community = np.concatenate([np.arange(size) % n_communities for size in sizes.values()])
    at = {name: np.flatnonzero(node_type == name) for name in sizes}
    link: dict[str, np.ndarray] = {}
    for edge_type, source, target, density in (
        ("GiG", "Gene", "Gene", 0.2),
        ("CbG", "Compound", "Gene", 0.15),
        ("DaG", "Disease", "Gene", 0.25),
    ):
        first, second = np.meshgrid(at[source], at[target], indexing="ij")
        allowed = community[first] == community[second]
        link[edge_type] = _draw(allowed, density, noise, first >= second if source == target else None, rng)
    path = link["CbG"].astype(int) @ link["DaG"].T.astype(int) > 0
    path &= community[at["Compound"]][:, None] == community[at["Disease"]][None, :]
    link["CtD"] = _draw(path, 0.6, noise, None, rng)
    ends = {"GiG": ("Gene", "Gene"), "CbG": ("Compound", "Gene"), "DaG": ("Disease", "Gene")}
    ends["CtD"] = ("Compound", "Disease")
    return SimulatedGraph(_record(sizes, ends, link), community)


def _record(
    sizes: Mapping[str, int], ends: Mapping[str, tuple[str, str]], link: Mapping[str, np.ndarray]
) -> KnowledgeGraph:
    """The graph of so many nodes of each type, with the links [sources, targets] of each edge type as its edges."""
    ids = {name: np.array([f"{name}::{i + 1:04d}" for i in range(size)]) for name, size in sizes.items()}
    node_id = np.concatenate(list(ids.values()))
    source_id, target_id, edge_types = [], [], []
    for edge_type, (source, target) in ends.items():
        row, column = np.nonzero(link[edge_type])
        source_id.append(ids[source][row])
        target_id.append(ids[target][column])
        edge_types.append(np.repeat(edge_type, len(row)))
    return KnowledgeGraph(
        name="simulated_knowledge_graph",
        node_id=node_id,
        node_name=np.char.replace(np.char.lower(node_id), "::", " "),
        node_type=np.repeat(list(sizes), list(sizes.values())),
        node_types=tuple(sizes),
        source_id=np.concatenate(source_id),
        edge_type=np.concatenate(edge_types),
        target_id=np.concatenate(target_id),
    ).validate()


@configurable
def simulated_links(
    edge_types: str | Sequence[str] = "CtD",
    n_genes: int = 300,
    n_compounds: int = 120,
    n_diseases: int = 60,
    n_communities: int = 6,
    noise: float | int = 0.1,
    negatives_per_positive: int = 1,
    seed: int = 0,
) -> Links:
    """Candidate edges of ``simulate_knowledge_graph``; see there and ``links.link_samples``."""
    simulated = simulate_knowledge_graph(n_genes, n_compounds, n_diseases, n_communities, noise, seed)
    return link_samples(simulated.graph, edge_types, negatives_per_positive, seed)


def _draw(
    allowed: np.ndarray, density: float, noise: float | int, barred: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Links [rows, columns], bool: a share of the ``allowed`` ones, and noise among all others not ``barred``."""
    free = np.ones_like(allowed) if barred is None else ~barred
    true = allowed & free & (rng.random(allowed.shape) < density)
    others = np.flatnonzero(free & ~allowed)
    link = true.copy().ravel()
    link[rng.choice(others, min(round(true.sum() * noise / (1 - noise)), len(others)), replace=False)] = True
    return link.reshape(allowed.shape)
