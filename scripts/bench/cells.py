"""Sets of sparse cells as dense batches, against ``anndata``'s ``AnnLoader`` with the same cells a batch.

20,000 cells x 7,000 genes, a tenth of the values above zero; a batch is 64 sets of 16 perturbed cells. Ours also
deals the cells to sets, draws as many control cells, and takes each set's mean; ``AnnLoader`` draws cells at random.
All dense float32 cells that come out count. Seconds are the processor's, as others share it, interleaved, and the
ratio is the median of those of neighbouring rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
from anndata.experimental import AnnLoader
from rich.console import Console
from rich.table import Table
from scipy import sparse
from target import Target, at_least

from torchcell.data.backed import BackedMatrix
from torchcell.data.cells import CellExpression
from torchcell.data.conditions import Conditions
from torchcell.datamodules.batch import PackedLoader
from torchcell.datamodules.cell_set_batch import CellSetBatch, SetOrder, TrainingSets
from torchcell.datamodules.spec import Spec

CELLS, GENES, DENSITY, CONDITIONS = 20_000, 7_000, 0.1, 50
SETS, SIZE = 64, 16
ROUNDS, BATCHES = 7, 3
"""Rounds, and batches of each loader a round; from disk one batch."""


def run() -> list[Target]:
    """Cells a second of both loaders, in memory and from disk."""
    warnings.filterwarnings("ignore", module="anndata")
    X = sparse.random(CELLS, GENES, DENSITY, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    table = Table(title="cells, sparse to dense batches", title_justify="left")
    for column in ("where", "loader", "cells/s", "ratio"):
        table.add_column(column, justify="left" if column in ("where", "loader") else "right")
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        plain = anndata.AnnData(X, var={"gene": names()})
        plain.write_h5ad(path)
        on_disk = anndata.read_h5ad(path, backed="r")
        for where, values, theirs, n in (
            ("memory", X, plain, BATCHES),
            ("disk", BackedMatrix.open(path), on_disk, 1),
        ):
            ours = loader(values)
            one, other = (endless(each) for each in (ours, AnnLoader(theirs, batch_size=SETS * SIZE, shuffle=True)))
            rounds = [(rate(one, n), rate(other, n)) for _ in range(ROUNDS if n > 1 else 3)][1:]
            ratios[where] = statistics.median(fast / slow for fast, slow in rounds)
            fast, slow = (statistics.median(each) for each in zip(*rounds, strict=True))
            table.add_row(where, "AnnLoader", f"{slow:,.0f}", "1x")
            table.add_row("", "cell sets", f"{fast:,.0f}", f"{ratios[where]:.1f}x")
        on_disk.file.close()
    Console(width=120).print(table)
    return [at_least(f"sets of cells against AnnLoader, {SETS} sets of {SIZE}", ratios["memory"], 5)]


def names() -> np.ndarray:
    """Of the genes."""
    return np.array([f"G{i}" for i in range(GENES)])


def loader(X: Any) -> PackedLoader:
    """Training batches, a tenth of the cells being controls."""
    label = np.arange(CELLS) % CONDITIONS
    labels = np.where(label < CONDITIONS // 10, "control", np.char.add("G", label.astype(str)))
    ids = np.arange(CELLS).astype(str)
    cells = CellExpression("bench", X, labels, labels == "control", names(), ids, "lognorm")
    record = Conditions.from_cells(cells)
    genes, blank = tuple(names().tolist()), torch.zeros(GENES)
    extras = {"groups": ["all"], "set_size": SIZE, "input_cells": SIZE, "eval_sets": 1}
    spec = Spec("cells", genes, genes, (), blank, blank + 1, None, "bench", extras)
    sets = TrainingSets(record, spec, np.arange(len(record)))
    return PackedLoader(sets, SetOrder(sets, shuffle=True), SETS)


def endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from batches


def rate(batches: Iterator[Any], n: int) -> float:
    """Dense cells a second of the processor."""
    start, cells = time.process_time(), 0
    for _ in range(n):
        batch = next(batches)
        tensors = (batch.control, batch.perturbed) if isinstance(batch, CellSetBatch) else (batch.X,)
        for x in tensors:
            assert x.dtype == torch.float32
            assert not x.is_sparse
            cells += x.shape[:-1].numel()
    return cells / (time.process_time() - start)
