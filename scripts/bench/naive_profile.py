"""The naive way in PyG through the phases of ``python -m torchcell.profile``: loader, forward, backward, full step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from naive_hetero import NaiveLoader, NaiveNetwork, edge_types
from torch import Tensor, nn
from torch_geometric.data import Batch

from torchcell.graph.cell_graph import CellGraph
from torchcell.training.profile import PHASES, PeakMemory, clock

EDGES = 6_000_000
"""Edges that a batch may copy: 2 samples of the yeast cell. 28 of them, the published batch, would need 19 GB."""
PUBLISHED_BATCH = 28
BATCHES = 4
"""Different batches, and the most that a phase times."""


def measure(
    graph: CellGraph,
    sets: Sequence[Tensor],
    dim: int,
    layers: int,
    seconds: float,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Samples a second by phase, each phase with the ones before it, for a network of the given size.

    Args:
        graph: The wild-type graph; all its relations are used.
        sets: Positions of each sample's deleted genes, int64 [k].
        dim: Width of all node states.
        layers: Message-passing layers.
        seconds: A phase ends after this time, though not before one timed step.
        device: Where the network is; batches are made on the CPU.

    Returns:
        The phases, for each also ``<phase>: steps`` and ``<phase>: peak_mb``, and ``batch_size``, ``bytes_per_batch``.
    """
    device = torch.device(device)
    n_edges = sum(len(graph.csr(relation).indices) for relation in graph.relations)
    size = min(max(EDGES // n_edges, 2), PUBLISHED_BATCH, len(sets))
    loader = NaiveLoader(graph, [one.tolist() for one in sets[: BATCHES * size]], size)
    network = _Naive(graph, dim, layers).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    found: dict[str, float] = {"batch_size": float(size), "bytes_per_batch": float(_nbytes(next(iter(loader))))}
    for phase in PHASES:
        with PeakMemory(device) as memory:
            found[phase], found[f"{phase}: steps"] = _rate(phase, loader, network, optimizer, seconds, device)
        found[f"{phase}: peak_mb"] = memory.megabytes
    return found


class _Naive(nn.Module):
    """Node embeddings, the network, and one number a sample."""

    def __init__(self, graph: CellGraph, dim: int, layers: int) -> None:
        super().__init__()
        sizes = {kind: len(graph.names(kind)) for kind in graph.node_types}
        self.embedding = nn.ParameterDict({kind: torch.randn(n, dim) / dim**0.5 for kind, n in sizes.items()})
        self.network = NaiveNetwork(dim, layers, edge_types(graph))
        self.head = nn.Linear(dim, 1)

    def forward(self, batch: Batch) -> Tensor:
        return self.head(self.network(dict(self.embedding.items()), batch))


def _rate(
    phase: str,
    loader: NaiveLoader,
    network: _Naive,
    optimizer: torch.optim.Optimizer,
    seconds: float,
    device: torch.device,
) -> tuple[float, int]:
    """Samples a second over at most ``BATCHES`` steps after one to warm up, and their number."""
    batches = _batches(loader, device)
    _work(phase, next(batches), network, optimizer)
    samples = steps = 0
    start, taken = clock(device), 0.0
    while steps < BATCHES and taken < seconds:
        batch = next(batches)
        _work(phase, batch, network, optimizer)
        samples, steps, taken = samples + batch.num_graphs, steps + 1, clock(device) - start
    return samples / taken, steps


def _batches(loader: NaiveLoader, device: torch.device) -> Iterator[Batch]:
    while True:
        for batch in loader:
            yield batch.to(device)


def _work(phase: str, batch: Batch, network: _Naive, optimizer: torch.optim.Optimizer) -> None:
    """What ``phase`` does with a batch that has been loaded."""
    if phase == "loader":
        return
    prediction = network(batch)
    if phase == "forward":
        return
    prediction.square().mean().backward()
    if phase == "full step":
        optimizer.step()
    optimizer.zero_grad()


def _nbytes(batch: Batch) -> int:
    values = [value for store in batch.stores for value in store.values()]
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))
