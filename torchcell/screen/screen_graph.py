"""A screen meets a network: by which names they meet, what the network lacks, and what of it the screen needs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError, some
from torchcell.io.gene_names import MeasuredGenes, alias_table
from torchcell.screen.record import Screen

MOST_UNKNOWN = 0.5
"""Share of a screen's genes from which on the network speaks another language."""
COSTLY = 10
"""A network so many times as large as what surrounds the screen's genes is worth a word before training."""


def joined(
    record: Screen, graph: CellGraph, aliases: str | Path | None = None, isolate: bool = True
) -> tuple[CellGraph, dict[str, int]]:
    """The graph under the screen's names, cut to ``graph.restrict``, and what was done to it.

    Args:
        record: The screen; its names stay as they are.
        graph: The network.
        aliases: Table of ``alias`` and ``gene``, by which genes of the screen are found under other names.
        isolate: Whether genes that the network lacks become nodes without an edge.

    Raises:
        InputError: More than half of the screen's genes are unknown to the network: names of either side. Two genes
            of the screen are one in the network.
    """
    perturbed = record.genes[np.unique(record.gene)]
    counts: dict[str, int] = {}
    if aliases is not None:
        graph, renamed = _renamed(perturbed, graph, aliases)
        counts |= renamed
    unknown = np.setdiff1d(perturbed, graph.genes)
    if len(unknown) > MOST_UNKNOWN * len(perturbed):
        raise InputError(
            f"{len(unknown):,} of the {len(perturbed):,} genes of {record.name} are not among the {len(graph):,} of "
            f"the network: the screen has {some(unknown)}, the network {some(graph.genes)}. Give the network in the "
            "screen's names, or data.aliases=FILE, a table of alias and gene; graph=none trains without a network"
        )
    if isolate:
        graph = graph.with_genes(unknown.tolist())
        counts["genes without an edge in the network"] = len(unknown)
    if graph.restrict is not None:
        before = graph.n_nodes
        graph = graph.around(perturbed)
        counts["nodes of the network that no gene of the screen has an edge with"] = before - graph.n_nodes
    return graph, {what: n for what, n in counts.items() if n}


def cost_note(record: Screen, graph: CellGraph) -> str | None:
    """A word on a network that is far larger than what surrounds the screen's genes; none where it is not."""
    perturbed = record.genes[np.unique(record.gene)]
    if len(graph) < COSTLY * len(perturbed) or graph.rules is not None:
        return None
    near = graph.around(perturbed)
    share = _size(graph) / max(_size(near), 1)
    if share < COSTLY:
        return None
    return (
        f"The network has {len(graph):,} genes, and the screen perturbs {len(perturbed):,}: a model that encodes the "
        f"whole cell pays some {share:.0f} times what these and their neighbors ({len(near):,} genes) would cost; "
        "graph.restrict=screen keeps those"
    )


def _size(graph: CellGraph) -> int:
    return graph.n_nodes + sum(graph.n_edges(relation) for relation in graph.relations)


def _renamed(perturbed: np.ndarray, graph: CellGraph, aliases: str | Path) -> tuple[CellGraph, dict[str, int]]:
    """The graph with the screen's names for what the table says is the same gene, and counts of both sorts of alias."""
    known = MeasuredGenes(graph.genes, alias_table(aliases))
    missing = np.setdiff1d(perturbed, graph.genes).tolist()
    found = {name: gene for name in missing if (gene := known.find(name)) is not None}
    names_of = Counter(found.values())
    own = set(perturbed.tolist())
    several = [f"{name} = {gene}" for name, gene in found.items() if names_of[gene] > 1 or gene in own]
    if several:
        raise InputError(
            f"{aliases}: genes of the screen are one gene of the network: {some(several)}; give each gene one name"
        )
    counts, unclear = {"genes that the network knows by another name": len(found)}, known.unclear(missing)
    if unclear:
        counts[f"aliases of several genes, which are not used ({some(unclear, 3)})"] = len(unclear)
    return graph.renamed({gene: name for name, gene in found.items()}), counts
