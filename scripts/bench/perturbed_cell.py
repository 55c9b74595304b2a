"""F(G minus S), forward and backward, on a graph of yeast size: scatter, tile, hybrid, delta; memory of a delta step.

H' = relu(sum over r of A_r H W_r + H W_0), two layers of width 32, B = 28 pairs and triples.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import torch
from naive_hetero import NaiveLoader, NaiveNetwork, edge_types
from representations import BATCH, cell
from rich.console import Console
from rich.table import Table
from target import Target, at_least, at_most, seconds

from torchcell.graph.cell_graph import deleted_nodes
from torchcell.nn.relations import RelationStack
from torchcell.screen.datamodule import PerturbationSets
from torchcell.screen.models.perturbed_cell_gnn.layers import RelationalLayer
from torchcell.screen.models.perturbed_cell_gnn.perturbed_cell import PerturbedCell
from torchcell.screen.simulate_large import synthetic_screen
from torchcell.training.profile import PeakMemory

DIM = 32
WAYS = {"tile": ("tile", False), "hybrid": ("hybrid", False), "delta": ("delta", False), "linear": ("delta", True)}


def run() -> list[Target]:
    """Samples a second of each way, the naive one at B = 2, and how far single precision is off."""
    torch.manual_seed(0)
    graph = cell()
    sets = PerturbationSets(synthetic_screen(seed=0), tuple(graph.genes.tolist()))
    batch = sets[torch.arange(BATCH)]
    node, ptr = deleted_nodes(graph, batch.gene, batch.ptr)
    stack = RelationStack(graph, graph.relations)
    layers = [RelationalLayer(DIM, len(stack), "rgcn", "sum", "none", residual=False) for _ in range(2)]
    x = (torch.randn(graph.n_nodes, DIM) / DIM**0.5).requires_grad_()
    rates, memory, lost = {}, {}, {}
    for name, (way, linear) in WAYS.items():
        layers[1].linear = linear
        network = PerturbedCell(stack, layers, torch.zeros(graph.n_nodes, dtype=torch.long), way)

        def step(network: PerturbedCell = network) -> torch.Tensor:
            out = network.lost(network.wild_type(x), node, ptr)
            out.square().mean().backward()
            return out.detach()

        lost[name] = step()
        rates[name] = BATCH / seconds(step, repeats=3)
        memory[name] = _peak(step)
    layers[1].linear = True
    exact = PerturbedCell(stack, layers, torch.zeros(graph.n_nodes, dtype=torch.long), "tile").double()
    with torch.no_grad():
        lost["linear, exact"] = exact.lost(exact.wild_type(x.double()), node, ptr)
    rates["scatter"] = _scatter(graph, sets)
    _show(rates, memory)
    return [
        at_least("delta against scatter, samples/s", rates["delta"] / rates["scatter"], 80),
        at_least("delta against tile, samples/s", rates["delta"] / rates["tile"], 2),
        at_least("delta with a linear readout against scatter", rates["linear"] / rates["scatter"], 80),
        at_most(f"delta, peak memory of a step, B = {BATCH}, d = {DIM}", memory["delta"], 300, "MB"),
        at_most("hybrid against tile, largest relative difference", _off(lost["hybrid"], lost["tile"]), 1e-5, ""),
        at_most("delta against tile, largest relative difference", _off(lost["delta"], lost["tile"]), 1e-5, ""),
        at_most("linear readout against float64 tiles", _off(lost["linear"], lost["linear, exact"]), 1e-4, ""),
    ]


def _scatter(graph, sets: PerturbationSets) -> float:
    """The naive network at B = 2: at 28 it would need 19 GB. The loader's time is left out."""
    pairs = [sets[torch.tensor([i])].gene.tolist() for i in range(2)]
    (batch,) = NaiveLoader(graph, pairs, 2)
    network = NaiveNetwork(DIM, 2, edge_types(graph))
    x = {kind: torch.randn(len(graph.names(kind)), DIM, requires_grad=True) for kind in graph.node_types}
    network(x, batch).square().mean().backward()
    start = time.perf_counter()
    network(x, batch).square().mean().backward()
    return 2 / (time.perf_counter() - start)


def _peak(step: Callable[[], object]) -> float:
    """Growth of this process's resident memory in a step, MB."""
    with PeakMemory(torch.device("cpu")) as memory:
        step()
    return memory.megabytes


def _off(value: torch.Tensor, reference: torch.Tensor) -> float:
    return float((value.double() - reference.double()).abs().max() / reference.abs().max())


def _show(rates: dict[str, float], memory: dict[str, float]) -> None:
    table = Table(
        title=f"F(G minus S), forward and backward, {torch.get_num_threads()} thread(s), {psutil.cpu_count()} cores",
        title_justify="left",
    )
    for column in ("way", "samples/s", "peak MB"):
        table.add_column(column, justify="right")
    for name in ("scatter", *WAYS):
        table.add_row(name, f"{rates[name]:,.2f}", f"{memory[name]:,.0f}" if name in memory else "")
    Console(width=120).print(table)
