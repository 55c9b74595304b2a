"""The cell graph transformer on a cell of yeast's size: its graph loss against the dense one, and what a step costs.

d = 64, 4 layers of 4 heads, 9 tied ones; pairs and triples. A step is forward, all loss terms and backward, without the
optimizer. ``tile`` is the naive way of the other network, two layers of width 32 on each perturbed cell (see
``perturbed_cell``): another function, so only the cost can be compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from representations import BATCH, cell
from rich.console import Console
from rich.table import Table
from target import Target, at_least, at_most, seconds
from torch import Tensor, nn

from torchcell.core.spec import fit_scaler
from torchcell.graph.cell_graph import CellGraph, deleted_nodes
from torchcell.nn.relations import RelationStack
from torchcell.screen.datamodule import PerturbationBatch, PerturbationSets
from torchcell.screen.models.cell_graph_transformer.attention import attention
from torchcell.screen.models.cell_graph_transformer.graph_loss import GraphLoss
from torchcell.screen.models.cell_graph_transformer.model import CellGraphTransformer, PerturbationHead
from torchcell.screen.models.cell_graph_transformer.options import EncoderOptions, GraphLossOptions
from torchcell.screen.models.perturbed_cell_gnn.layers import RelationalLayer
from torchcell.screen.models.perturbed_cell_gnn.perturbed_cell import PerturbedCell
from torchcell.screen.record import Screen
from torchcell.screen.simulate_large import synthetic_screen
from torchcell.screen.spec import ScreenSpec
from torchcell.training.profile import PeakMemory, tensor_megabytes

DIM, LAYERS, HEADS, WEIGHT = 64, 4, 4, 0.01
WIDTH = DIM // HEADS
NETWORK_DIM = 32
"""Of the network on the perturbed cell."""
MEDIUM, LARGE = 512, 4096
CPU = torch.device("cpu")
ROWS = 1024
"""Rows whose float64 scores exist at once in the reference."""


def run() -> list[Target]:
    """One head alone, then whole steps."""
    torch.manual_seed(0)
    graph = cell()
    return [*_one_head(graph), *_steps(graph)]


# One head -----------------------------------------------------------------------------------------


def _one_head(graph: CellGraph) -> list[Target]:
    """Attention of one head and its divergence from the largest relation, forward and backward."""
    relation = max(graph.relations, key=lambda name: len(graph.csr(name).indices))
    term, divergence = GraphLoss(graph, relation), DenseDivergence(graph, relation)
    q, k, v = (torch.randn(1, 1 + len(graph), WIDTH, requires_grad=True) for _ in range(3))

    def sparse() -> tuple[Tensor, ...]:
        out, lse = attention(q, k, v, [0])
        return torch.autograd.grad(out.sum() + term(q[0], k[0], lse[0]), (q, k, v))

    def dense() -> tuple[Tensor, ...]:
        out = (q[0] @ k[0].T / WIDTH**0.5).softmax(-1) @ v[0]
        return torch.autograd.grad(out.sum() + divergence(q[0], k[0]), (q, k, v))

    def plain() -> tuple[Tensor, ...]:
        return torch.autograd.grad(attention(q, k, v)[0].sum(), (q, k, v))

    ways = {"sparse": sparse, "dense": dense, "fused attention alone": plain}
    taken = {name: seconds(way, repeats=3) for name, way in ways.items()}
    memory = {name: tensor_megabytes(way, CPU) for name, way in ways.items()}
    _show(f"one head and its graph loss, {relation}, T = {1 + len(graph):,}", taken, memory)
    return [
        at_least("graph KL of one head, sparse against dense: time", taken["dense"] / taken["sparse"], 4),
        at_least("graph KL of one head, sparse against dense: memory", memory["dense"] / memory["sparse"], 20),
        at_most("sparse KL and its gradients against dense float64", _off(term, divergence, q[0], k[0]), 1e-5, ""),
    ]


class DenseDivergence:
    """The same divergence with N x N tensors."""

    def __init__(self, graph: CellGraph, relation: str) -> None:
        weight_NN = abs(graph.scipy(relation))
        weight_NN.setdiag(0)
        weight_NN.eliminate_zeros()
        self.covered_N = torch.from_numpy(np.diff(weight_NN.indptr) + np.diff(weight_NN.tocsc().indptr) > 0)
        self.row_R = torch.from_numpy(np.flatnonzero(np.diff(weight_NN.indptr)))
        dense_NN = torch.from_numpy(weight_NN.toarray())
        self.share_RN = dense_NN[self.row_R] / dense_NN[self.row_R].sum(1, keepdim=True)
        entropy_RN = torch.special.entr(self.share_RN.double())
        self.entropy_R = -entropy_RN.sum(1)

    def __call__(self, q_TD: Tensor, k_TD: Tensor, rows: slice = slice(None)) -> Tensor:
        """The sum over ``rows`` of the rows that count, over the number of all of them."""
        share_SN = self.share_RN[rows].to(q_TD.dtype)
        score_SN = q_TD[1:][self.row_R[rows]] @ k_TD[1:].T / WIDTH**0.5
        # A number, as 0 times minus infinity is no number.
        log_SN = score_SN.masked_fill(~self.covered_N, -1e30).log_softmax(-1)
        total = self.entropy_R[rows].sum() - (share_SN * log_SN).sum()
        return total / len(self.row_R)


def _off(term: GraphLoss, divergence: DenseDivergence, q_TD: Tensor, k_TD: Tensor) -> float:
    """Largest difference of value, dQ and dK, each relative to its largest entry."""
    single = [each.detach().requires_grad_() for each in (q_TD, k_TD)]
    double = [each.detach().double().requires_grad_() for each in (q_TD, k_TD)]
    _, lse = attention(single[0][None], single[1][None], single[1][None], [0])
    ours = term(*single, lse[0])
    ours.backward()
    total = torch.zeros((), dtype=torch.float64)
    for first in range(0, len(divergence.row_R), ROWS):
        part = divergence(*double, slice(first, first + ROWS))
        part.backward()
        total += part.detach()
    pairs = [(ours.detach(), total), *((a.grad, b.grad) for a, b in zip(single, double, strict=True))]
    return max(float((mine - truth).abs().max() / truth.abs().max()) for mine, truth in pairs)


# Whole steps --------------------------------------------------------------------------------------


def _steps(graph: CellGraph) -> list[Target]:
    """The transformer's step by batch size and lambda, beside the network on the perturbed cell."""
    screen = synthetic_screen(seed=0)
    sets = PerturbationSets(screen, tuple(graph.genes.tolist()))
    batches = {size: sets[torch.arange(size)] for size in (BATCH, MEDIUM, LARGE)}
    tied, free = (transformer(graph, screen, weight) for weight in (WEIGHT, 0.0))
    network = PerturbedNetwork(graph)
    steps = {f"B = {size:,}": partial(step, tied, batch) for size, batch in batches.items()}
    steps[f"B = {MEDIUM}, lambda 0"] = partial(step, free, batches[MEDIUM])
    tiles, once = f"tile, B = {BATCH}", f"two layers, wild type once, B = {MEDIUM}"
    steps |= {tiles: partial(network.tile, batches[BATCH]), once: partial(network.once, batches[MEDIUM])}
    taken = interleaved(steps)
    memory = {f"B = {size:,}": _peak(steps[f"B = {size:,}"]) for size in (MEDIUM, LARGE)}
    memory[once] = _peak(steps[once])
    sizes = dict.fromkeys(taken, MEDIUM) | {f"B = {size:,}": size for size in batches} | {tiles: BATCH}
    _show(f"steps, d = {DIM}, {LAYERS} layers, {len(tied.assignments)} assigned heads", taken, memory, sizes)
    rate = {name: sizes[name] / taken[name] for name in taken}
    tile, medium, large = rate[tiles], f"B = {MEDIUM}", f"B = {LARGE:,}"
    added = 100 * (taken[medium] / taken[f"{medium}, lambda 0"] - 1)
    return [
        at_most("KL of all graphs, added step time", added, 25, "%"),
        at_most(f"step at B = {MEDIUM} against B = {BATCH}", taken[medium] / taken[f"B = {BATCH}"], 1.15, "x"),
        at_least(f"transformer against tile, samples/s, B = {MEDIUM}", rate[medium] / tile, 8),
        at_least(f"transformer against tile, samples/s, B = {LARGE:,}", rate[large] / tile, 50),
        at_most(f"transformer, peak memory of a step, B = {MEDIUM}", memory[medium], 400, "MB"),
        at_least(f"wild type once, two-layer network, B = {MEDIUM}, against tile", rate[once] / tile, 100),
    ]


def transformer(graph: CellGraph, screen: Screen, weight: float) -> CellGraphTransformer:
    """With random weights, the same for each lambda."""
    torch.manual_seed(0)
    scaler = fit_scaler(torch.from_numpy(screen.phenotype), "regression")
    names, genes = tuple(screen.phenotype_names), tuple(graph.genes.tolist())
    trained = {"trained_genes": torch.arange(len(genes)), "trained_sizes": (2,)}
    spec = ScreenSpec("regression", names, genes, ("absent",), *scaler, graph, "", **trained)
    return CellGraphTransformer(
        spec,
        encoder=EncoderOptions(dim=DIM, layers=LAYERS, heads=HEADS),
        graph_loss=GraphLossOptions(weight=weight),
    )


def step(model: CellGraphTransformer, batch: PerturbationBatch) -> None:
    """Forward, all loss terms and backward."""
    model.zero_grad()
    torch.stack(list(model.losses(batch, model(batch)).values())).sum().backward()


class PerturbedNetwork:
    """H' = relu(sum over r of A_r H W_r + H W_0), two layers, read from each perturbed cell or from the wild type."""

    def __init__(self, graph: CellGraph) -> None:
        stack = RelationStack(graph, graph.relations)
        layers = [RelationalLayer(NETWORK_DIM, len(stack), "rgcn", "sum", "none", residual=False) for _ in range(2)]
        self.graph = graph
        self.network = PerturbedCell(stack, layers, torch.zeros(graph.n_nodes, dtype=torch.long), "tile")
        self.head, self.readout = PerturbationHead(NETWORK_DIM, 1), nn.Linear(NETWORK_DIM, 1)
        self.x_ND = (torch.randn(graph.n_nodes, NETWORK_DIM) / NETWORK_DIM**0.5).requires_grad_()

    def tile(self, batch: PerturbationBatch) -> None:
        """F(G) - F(G minus S), each sample's cell on its own."""
        node, ptr = deleted_nodes(self.graph, batch.gene, batch.ptr)
        self.network.lost(self.network.wild_type(self.x_ND), node, ptr).square().mean().backward()

    def once(self, batch: PerturbationBatch) -> None:
        """The wild type once, and the head for each sample."""
        h_ND = self.network.wild_type(self.x_ND).x[-1]
        z_BD = self.head(h_ND, batch.gene, torch.zeros_like(batch.kind), batch.level, batch.ptr)
        self.readout(z_BD).square().mean().backward()


# How it is measured -------------------------------------------------------------------------------


def interleaved(ways: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Median wall time of each, taken in turns, so that whatever else the machine does falls on all alike."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number:  # the first round warms up
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in taken.items()}


def _peak(way: Callable[[], object]) -> float:
    """Growth of this process's resident memory, MB."""
    with PeakMemory(CPU) as memory:
        way()
    return memory.megabytes


def _show(title: str, taken: dict[str, float], memory: dict[str, float], sizes: dict[str, int] | None = None) -> None:
    table = Table(title=f"{title}, forward and backward, {torch.get_num_threads()} thread(s)", title_justify="left")
    for column in ("way", "ms", "samples/s", "peak MB"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, each in taken.items():
        rate = f"{sizes[name] / each:,.1f}" if sizes else ""
        table.add_row(name, f"{1e3 * each:,.0f}", rate, f"{memory[name]:,.0f}" if name in memory else "")
    Console(width=120).print(table)
