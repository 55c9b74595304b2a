"""The lazy batch and the k-hop node sets against PyG, on a graph of yeast size: 9 relations, 2.5 M edges."""

from __future__ import annotations

import functools
import time

import torch
from naive_hetero import NaiveLoader, both_ways, khop_of_edges, unified_edges
from rich.console import Console
from rich.table import Table
from target import Target, at_least, seconds

from torchcell.core.batch import BatchOrder, PackedLoader
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighborhood import closure
from torchcell.screen.datamodule import PerturbationSets
from torchcell.screen.simulate_large import synthetic_networks, synthetic_screen

BATCH = 28
"""Samples that the published loader collates at a time."""


@functools.cache
def cell() -> CellGraph:
    """The synthetic cell of docs/concepts/representations.md."""
    return CellGraph.from_networks(synthetic_networks(seed=0))


def run() -> list[Target]:
    """Time and bytes of a batch; time of a sample's node set for k = 1, 2, 3."""
    graph, screen = cell(), synthetic_screen(seed=0)
    sets = PerturbationSets(screen, tuple(graph.genes.tolist()))
    return [*_batches(graph, sets), *_node_sets(graph, sets)]


def _batches(graph: CellGraph, sets: PerturbationSets) -> list[Target]:
    ours = PackedLoader(sets, BatchOrder(torch.arange(len(sets)), shuffle=True), BATCH)
    fast = seconds(lambda: [None for _ in ours]) / len(ours)
    few = [sets[torch.tensor([i])].gene.tolist() for i in range(BATCH)]
    start = time.perf_counter()
    (theirs,) = NaiveLoader(graph, few, BATCH)
    slow = time.perf_counter() - start
    sizes = _nbytes(theirs), next(iter(ours)).nbytes
    table = Table(title=f"a batch of {BATCH} on {graph.n_nodes:,} genes, {_edges(graph):,} edges", title_justify="left")
    for column in ("representation", "ms a batch", "bytes a batch"):
        table.add_column(column, justify="right")
    table.add_row("HeteroData with all edges", f"{1e3 * slow:,.0f}", f"{sizes[0]:,}")
    table.add_row("lazy: indices", f"{1e3 * fast:.4f}", f"{sizes[1]:,}")
    Console(width=120).print(table)
    return [
        at_least(f"lazy batch against HeteroData collate, B = {BATCH}: time", slow / fast, 10_000),
        at_least(f"lazy batch against HeteroData collate, B = {BATCH}: bytes", sizes[0] / sizes[1], 5_000),
    ]


def _node_sets(graph: CellGraph, sets: PerturbationSets) -> list[Target]:
    batch = sets[torch.arange(1_024)]
    edges = unified_edges(graph)
    joined, members = both_ways(edges), batch.gene[: batch.ptr[1]].tolist()
    table = Table(title="node set of a sample, µs", title_justify="left")
    for column in ("k", "packed bits", "mask", "PyG, k_hop_subgraph and 9 x subgraph"):
        table.add_column(column, justify="right")
    targets = []
    for k in (1, 2, 3):
        near = closure(graph, k)
        packed = seconds(lambda near=near: near.packed(batch.gene, batch.ptr)) / len(batch)
        mask = seconds(lambda near=near: near.nodes(batch.gene, batch.ptr)) / len(batch)

        slow = seconds(lambda k=k: khop_of_edges(edges, graph.n_nodes, members, k, joined), repeats=2)
        table.add_row(str(k), *(f"{1e6 * value:,.2f}" for value in (packed, mask, slow)))
        targets.append(at_least(f"{k}-hop node sets against PyG, as masks", slow / mask, 10_000))
    Console(width=120).print(table)
    return targets


def _edges(graph: CellGraph) -> int:
    return sum(len(graph.csr(relation).indices) for relation in graph.relations)


def _nbytes(batch) -> int:
    values = [value for store in batch.stores for value in store.values()]
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))
