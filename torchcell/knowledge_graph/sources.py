"""Hetionet v1.0: its core of seven edge types, and the small sample of all 24."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from torchcell.graph.network import Network
from torchcell.io.cache import cached_record
from torchcell.io.configurable import configurable
from torchcell.io.sources import fetch
from torchcell.knowledge_graph.record import KnowledgeGraph, Links, best_connected, connected, link_samples, of_licences
from torchcell.knowledge_graph.table import GraphOptions, read_knowledge_graph

RECIPE = 2  # raise it when a parser changes, so that no older cache is read
COLUMNS = {"type": "kind", "edge_type": "metaedge"}
"""Column -> what Hetionet calls it."""
DIRECTED = ("Gr>G",)
"""A regulates B, and B regulates A, are two edges."""
GENE_NETWORKS = {"interaction": "GiG", "annotated": "GpPW"}
"""Relation of a wild-type graph -> edge type; ``annotated`` is what ``torchcell.graph.cell_graph`` looks for."""


@configurable
def hetionet_core(
    edge_types: str | Sequence[str] = "CtD",
    licences: Sequence[str] | None = None,
    negatives_per_positive: int = 1,
    limit_nodes: int | None = None,
    seed: int = 0,
) -> Links:
    """Genes, pathways, compounds and diseases of Hetionet v1.0, joined by 257,191 edges of seven edge types.

    Args:
        edge_types: What to predict: one edge type, several, or ``all``; the graph has all seven in any case.
        licences: Keep only the edges of these licences, e.g. ``[CC BY 4.0, CC0 1.0, not stated]``.
        negatives_per_positive: Sampled non-edges of each kind per edge, see ``record.link_samples``.
        limit_nodes: Keep so many nodes, for trials; see ``record.best_connected``.
        seed: Of the negatives.

    Raises:
        InputError: The files can't be had or are damaged; an unknown edge type or licence.

    Source: Himmelstein et al., eLife 2017, doi:10.7554/eLife.26726.
    """
    return _links(hetionet_core_graph(), edge_types, licences, negatives_per_positive, limit_nodes, seed)


@configurable
def hetionet_5k(
    edge_types: str | Sequence[str] = "CtD",
    negatives_per_positive: int = 1,
    limit_nodes: int | None = None,
    seed: int = 0,
) -> Links:
    """All 24 edge types of Hetionet v1.0, at most 5,000 edges of each: 99,676 edges.

    Of the 47,031 nodes those without an edge in this sample (20,457) are left out and counted: nothing can be learned
    of them. The arguments are those of ``hetionet_core``; the file tells no licences.
    """
    return _links(hetionet_5k_graph(), edge_types, None, negatives_per_positive, limit_nodes, seed)


def hetionet_core_graph() -> KnowledgeGraph:
    """All nodes and edges of the core, with a licence an edge."""
    return cached_record(KnowledgeGraph, "hetionet_core", ["hetionet_core"], {"recipe": RECIPE}, _parse_core)


def hetionet_5k_graph() -> KnowledgeGraph:
    """All nodes of Hetionet, most of them without an edge in the sample."""
    return cached_record(KnowledgeGraph, "hetionet_5k", ["hetionet_5k"], {"recipe": RECIPE}, _parse_5k)


@configurable
def hetionet_networks() -> list[Network]:
    """What Hetionet's core knows of human genes, named by symbol, for ``graph=hetionet``.

    ``interaction``: 146,937 protein interactions (GiG); ``annotated``: 84,372 places of genes in 1,822 pathways (GpPW).
    Two genes share a symbol, and are one here.
    """
    return [
        cached_record(Network, f"hetionet_{name}", ["hetionet_core"], {"recipe": RECIPE}, partial(_network, name))
        for name in GENE_NETWORKS
    ]


def _network(name: str) -> Network:
    graph = hetionet_core_graph()
    edges = graph.subset(graph.edge_type == GENE_NETWORKS[name])
    source, target = (graph.node_name[at] for at in (edges.source_index, edges.target_index))
    (end,) = np.unique(graph.node_type[edges.target_index]).tolist()
    weight, genes = np.ones(len(edges), dtype=np.float32), graph.node_name[graph.node_type == "Gene"]
    return Network(name, source, target, weight, end != "Gene", np.unique(genes), target_type=end.lower())


def _links(
    graph: KnowledgeGraph,
    edge_types: str | Sequence[str],
    licences: Sequence[str] | None,
    negatives_per_positive: int,
    limit_nodes: int | None,
    seed: int,
) -> Links:
    graph = best_connected(connected(of_licences(graph, licences)), limit_nodes)
    return link_samples(graph, edge_types, negatives_per_positive, seed)


def _parse_core() -> KnowledgeGraph:
    files = fetch("hetionet_core")
    nodes, edges = files["hetionet-core-nodes.tsv.gz"], files["hetionet-core-edges.tsv.gz"]
    return read_knowledge_graph(nodes, edges, COLUMNS | {"licence": "license"}, GraphOptions(name="hetionet_core"))


def _parse_5k() -> KnowledgeGraph:
    files = fetch("hetionet_5k")
    nodes, edges = files["hetionet-v1.0-nodes.tsv"], files["hetionet-v1.0-edges-5k.sif.gz"]
    return read_knowledge_graph(nodes, edges, COLUMNS, GraphOptions(directed=DIRECTED, name="hetionet_5k"))
