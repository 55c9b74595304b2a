"""A layer of the heterogeneous graph transformer on a knowledge graph of Hetionet's size, and of a tenth of it.

d = 64, 4 heads, forward and backward. Against PyG's ``HGTConv`` as it is shipped (without pyg-lib) on the tenth, which
takes about a minute a step, so it runs once; and against the same layer that concatenates on the whole. Resident memory
is measured, as elsewhere, above what stands before the step.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch
from naive_typed_attention import concatenating, edge_lists
from rich.console import Console
from rich.table import Table
from target import Target, at_least, at_most, seconds
from torch import Tensor
from torch_geometric.nn import HGTConv

from torchcell.knowledge_graph.simulate_large import synthetic_knowledge_graph
from torchcell.knowledge_graph.typed_graph import NeighborSampler, TypedGraph
from torchcell.nn.hgt import TypedHGT
from torchcell.training.profile import PeakMemory

DIM, HEADS = 64, 4
SEEDS, NEGATIVES, FAN_OUTS = 1024, 4, (16, 16)


def run() -> list[Target]:
    """Time on the tenth; time, memory and agreement on the whole; the sampler."""
    torch.manual_seed(0)
    return [*_tenth(), *_whole()]


def layer_of(graph: TypedGraph) -> TypedHGT:
    """With a learned gate and no norm, as PyG's."""
    return TypedHGT(DIM, [(r.source, r.target) for r in graph.relations], len(graph.node_types), HEADS, norm=False)


def _tenth() -> list[Target]:
    graph = TypedGraph.from_knowledge_graph(synthetic_knowledge_graph(0.1))
    layer, x_ND, csrs = layer_of(graph), torch.randn(len(graph), DIM, requires_grad=True), graph.csrs()
    fast = seconds(lambda: _step(lambda: layer(x_ND, graph.bounds, csrs)))
    types = [(graph.node_types[r.source], r.name, graph.node_types[r.target]) for r in graph.relations]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyG's word on dots in names of types
        conv = HGTConv(DIM, DIM, (list(graph.node_types), types), HEADS)
    index = {each: torch.stack(pair) for each, pair in zip(types, edge_lists(csrs), strict=True)}

    def shipped() -> Tensor:
        by_type = dict(zip(graph.node_types, x_ND.split([b - a for a, b in _pairs(graph)]), strict=True))
        return torch.cat([y for y in conv(by_type, index).values() if y is not None])

    slow = _once(shipped)
    _show(graph, {"ours": (fast, None), "HGTConv as shipped": (slow, None)})
    return [at_least("HGT layer on a tenth of Hetionet against HGTConv as shipped: time", slow / fast, 8)]


def _whole() -> list[Target]:
    graph = TypedGraph.from_knowledge_graph(synthetic_knowledge_graph())
    layer, x_ND, csrs = layer_of(graph), torch.randn(len(graph), DIM, requires_grad=True), graph.csrs()
    lists = edge_lists(csrs)
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: layer(x_ND, graph.bounds, csrs),
        "concatenating": lambda: concatenating(layer, x_ND, graph.bounds, lists),
    }
    answers, memory, taken = {}, {}, {}
    for name, way in ways.items():
        with torch.no_grad():
            answers[name] = way()
        with PeakMemory(torch.device("cpu")) as peak:
            taken[name] = _once(way)
        memory[name] = peak.megabytes
        taken[name] = min(taken[name], _once(way))
    sampler, times = NeighborSampler(graph), "sampler"
    seed_S = torch.randint(len(graph), (SEEDS * (2 + NEGATIVES),))
    part = sampler.sample(seed_S, FAN_OUTS)
    sampling = seconds(lambda: sampler.sample(seed_S, FAN_OUTS))
    within = seconds(lambda: _step(lambda: layer(x_ND[part.node_M], part.bounds, part.csrs)), repeats=3)
    n_edges = sum(len(csr.indices) for csr in part.csrs)
    rows = {name: (taken[name], memory[name]) for name in ways}
    rows |= {f"{times}, {len(seed_S):,} seeds: {len(part.node_M):,} nodes, {n_edges:,} edges": (sampling, None)}
    _show(graph, rows | {"ours, on that part": (within, None)})
    off = float((answers["ours"] - answers["concatenating"]).abs().max() / answers["concatenating"].abs().max())
    return [
        at_least(
            "HGT layer on Hetionet's size against concatenating: memory", memory["concatenating"] / memory["ours"], 8
        ),
        at_least("HGT layer on Hetionet's size against concatenating: time", taken["concatenating"] / taken["ours"], 1),
        at_most("HGT layer against concatenating, largest relative difference", off, 1e-5, ""),
        at_most(f"{SEEDS:,} seed edges with {NEGATIVES} negatives, fan-out [16, 16]", 1e3 * sampling, 150, "ms"),
    ]


def _pairs(graph: TypedGraph) -> list[tuple[int, int]]:
    return list(zip(graph.bounds[:-1], graph.bounds[1:], strict=True))


def _step(way: Callable[[], Tensor]) -> None:
    way().square().mean().backward()


def _once(way: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    _step(way)
    return time.perf_counter() - start


def _show(graph: TypedGraph, rows: dict[str, tuple[float, float | None]]) -> None:
    n_edges = sum(len(csr.indices) for csr in graph.csrs())
    title = f"HGT layer, d = {DIM}, {HEADS} heads, {len(graph):,} nodes, {n_edges:,} directed edges, "
    table = Table(title=f"{title}{torch.get_num_threads()} thread(s)", title_justify="left")
    for column in ("way", "ms", "peak MB"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, (taken, memory) in rows.items():
        table.add_row(name, f"{1e3 * taken:,.0f}", "" if memory is None else f"{memory:,.0f}")
    Console(width=120).print(table)
