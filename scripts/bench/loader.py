"""The index loader against a PyG ``HeteroData`` loader with the same content."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table
from target import Target, at_least, seconds
from torch_geometric.data import HeteroData
from torch_geometric.loader import DataLoader

from torchcell.core.batch import BatchOrder, PackedLoader
from torchcell.screen.datamodule import PerturbationSets
from torchcell.screen.simulate import simulated_screen

SAMPLES = {64: 6_400, 1_024: 102_400}
WANTED = {64: 20.0, 1_024: 200.0}


def run() -> list[Target]:
    """Samples per second and bytes per batch of both, at B = 64 and B = 1,024."""
    screen = simulated_screen(seed=0)
    sets = PerturbationSets(screen, tuple(screen.genes.tolist()))
    objects = [_hetero(sets, i) for i in range(len(sets))]
    table = Table(title="loaders, the same content", title_justify="left")
    for column in ("batch size", "loader", "samples/s", "bytes a batch", "ratio"):
        table.add_column(column, justify="right")
    targets = []
    for size, n in SAMPLES.items():
        index = torch.arange(n) % len(sets)
        ours = PackedLoader(sets, BatchOrder(index, shuffle=True), size)
        few = [objects[i] for i in index[: min(n, 8 * size)].tolist()]
        theirs = DataLoader(few, batch_size=size, shuffle=True)
        fast = n / seconds(lambda loader=ours: [None for _ in loader])
        slow = len(few) / seconds(lambda loader=theirs: [None for _ in loader], repeats=3)
        sizes = next(iter(ours)).nbytes, _nbytes(next(iter(theirs)))
        table.add_row(f"{size:,}", "HeteroData", f"{slow:,.0f}", f"{sizes[1]:,}", "1x")
        table.add_row("", "perturbation index", f"{fast:,.0f}", f"{sizes[0]:,}", f"{fast / slow:,.0f}x")
        targets.append(at_least(f"index loader against HeteroData, B = {size:,}", fast / slow, WANTED[size]))
    Console(width=120).print(table)
    return targets


def _hetero(sets: PerturbationSets, i: int) -> HeteroData:
    """One sample as PyG would hold it: indices, kinds, levels, target and number."""
    batch = sets[torch.tensor([i])]
    data = HeteroData()
    data["perturbation"].gene = batch.gene
    data["perturbation"].kind = batch.kind
    data["perturbation"].level = batch.level
    data["perturbation"].num_nodes = len(batch.gene)
    data.target, data.sample = batch.target, batch.sample
    return data


def _nbytes(batch: HeteroData) -> int:
    values = [value for store in batch.stores for value in store.values()]
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))
