"""Simulated knowledge graph: communities of genes, and drug -> gene -> disease paths through them."""

from __future__ import annotations

from collections.abc import Sequence
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
        n_genes: Nodes of kind ``Gene``.
        n_compounds: Nodes of kind ``Compound``.
        n_diseases: Nodes of kind ``Disease``.
        n_communities: Communities; each kind is dealt out to them in turn.
        noise: Share of the edges of each metaedge that pay no heed to communities.
        seed: Seed of everything that is drawn; same arguments, same bytes.

    Raises:
        InputError: A kind with fewer nodes than communities, a noise outside 0 to 1.
    """
    sizes = {"Compound": n_compounds, "Gene": n_genes, "Disease": n_diseases}
    if min(sizes.values()) < n_communities or not 0 <= noise < 1:
        raise InputError(f"{n_communities} communities and noise {noise} do not fit nodes {sizes}")
    rng = np.random.default_rng(seed)
    kind = np.repeat(list(sizes), list(sizes.values()))
    community = np.concatenate([np.arange(size) % n_communities for size in sizes.values()])
    at = {name: np.flatnonzero(kind == name) for name in sizes}
    link: dict[str, np.ndarray] = {}
    for metaedge, source, target, density in (
        ("GiG", "Gene", "Gene", 0.2),
        ("CbG", "Compound", "Gene", 0.15),
        ("DaG", "Disease", "Gene", 0.25),
    ):
        first, second = np.meshgrid(at[source], at[target], indexing="ij")
        allowed = community[first] == community[second]
        link[metaedge] = _draw(allowed, density, noise, first >= second if source == target else None, rng)
    path = link["CbG"].astype(int) @ link["DaG"].T.astype(int) > 0
    path &= community[at["Compound"]][:, None] == community[at["Disease"]][None, :]
    link["CtD"] = _draw(path, 0.6, noise, None, rng)
    ends = {"GiG": ("Gene", "Gene"), "CbG": ("Compound", "Gene"), "DaG": ("Disease", "Gene")}
    ends["CtD"] = ("Compound", "Disease")
    node_id = np.concatenate([[f"{name}::{i + 1:04d}" for i in range(size)] for name, size in sizes.items()])
    source_id, target_id, metaedges = [], [], []
    for metaedge, (source, target) in ends.items():
        row, column = np.nonzero(link[metaedge])
        source_id.append(node_id[at[source][row]])
        target_id.append(node_id[at[target][column]])
        metaedges.append(np.repeat(metaedge, len(row)))
    graph = KnowledgeGraph(
        name="simulated_knowledge_graph",
        node_id=node_id,
        node_name=np.char.replace(np.char.lower(node_id), "::", " "),
        node_kind=kind,
        kinds=tuple(sizes),
        source_id=np.concatenate(source_id),
        metaedge=np.concatenate(metaedges),
        target_id=np.concatenate(target_id),
    ).validate()
    return SimulatedGraph(graph, community)


@configurable
def simulated_links(
    metaedges: str | Sequence[str] = "CtD",
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
    return link_samples(simulated.graph, metaedges, negatives_per_positive, seed)


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
