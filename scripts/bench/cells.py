"""Sets of sparse cells against ``anndata``'s ``AnnLoader`` with the same cells a batch.

20,000 cells x 7,000 genes, a tenth of the values above zero; a batch is 64 sets of 16 perturbed cells. Ours also
deals the cells to sets, draws as many control cells, which count as they come out too, and takes each set's mean;
``AnnLoader`` draws cells at random. The two don't hand over the same thing: ``AnnLoader`` makes cells dense, ours stay
sparse until the model reads them, on its device, and the target is for these batches as the model receives them. Two
further rows compare like with like: ours with all cells made dense on the processor, and ``AnnLoader`` without its
converter, which leaves cells sparse. ``AnnLoader`` depends on whether the C library hands 28 MB back to the system and
gets them anew: where it is told to keep them (``mallopt``), which is not the default, ours are 4.2 times as fast.
Seconds are the processor's, as others share it, interleaved, and a ratio is the
median of those of neighboring rounds.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
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

from torchcell.cells.backed import BackedMatrix
from torchcell.cells.batch import CellSetBatch, SetOrder, SparseRows, TrainingSets
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import CellExpression
from torchcell.cells.spec import CellsSpec, TrainedPerturbations
from torchcell.core.batch import PackedLoader

CELLS, GENES, DENSITY, CONDITIONS = 20_000, 7_000, 0.1, 50
SETS, SIZE = 64, 16
ROUNDS, BATCHES = 7, 3
"""Rounds, and batches of each loader a round; from disk 3 of one batch."""


def run() -> list[Target]:
    """Cells a second of both loaders, in memory and from disk."""
    warnings.filterwarnings("ignore", module="anndata")
    X = sparse.random(CELLS, GENES, DENSITY, format="csr", dtype=np.float32, random_state=np.random.default_rng(0))
    table = Table(title="cells out of a sparse matrix", title_justify="left")
    for column in ("where", "loader", "cells come", "cells/s", "ratio"):
        table.add_column(column, justify="right" if column in ("cells/s", "ratio") else "left")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        plain = anndata.AnnData(X, var={"gene": names()})
        plain.write_h5ad(path)
        on_disk = anndata.read_h5ad(path, backed="r")
        ratio = compare(table, "memory", X, plain, ROUNDS, BATCHES)
        compare(table, "disk", BackedMatrix.open(path), on_disk, 3, 1)
        on_disk.file.close()
    Console(width=120).print(table)
    return [at_least(f"sparse sets of cells against AnnLoader's dense cells, {SETS} sets of {SIZE}", ratio, 5)]


def compare(table: Table, where: str, ours: Any, theirs: anndata.AnnData, rounds: int, batches: int) -> float:
    """Rows of the table; returns how many times as many cells our batches bring as those of ``AnnLoader``."""
    mine, size = loader(ours), SETS * SIZE
    ways: dict[tuple[str, str], tuple[Iterator[Any], Callable[[Any], int]]] = {
        ("AnnLoader", "dense"): (endless(AnnLoader(theirs, batch_size=size, shuffle=True)), dense),
        ("cell sets", "sparse"): (endless(mine), received),
        ("cell sets", "made dense"): (endless(mine), made_dense),
        ("AnnLoader", "sparse"): (
            endless(AnnLoader(theirs, batch_size=size, shuffle=True, use_default_converter=False)),
            left_sparse,
        ),
    }
    taken = np.array([[rate(*way, batches) for way in ways.values()] for _ in range(rounds)])[1:]
    ratios = np.median(taken / taken[:, :1], 0)
    for (name, kind), speed, ratio in zip(ways, np.median(taken, 0), ratios, strict=True):
        table.add_row(where, name, kind, f"{speed:,.0f}", f"{ratio:.1f}x")
        where = ""
    return float(ratios[1])


def names() -> np.ndarray:
    """Of the genes."""
    return np.array([f"G{i}" for i in range(GENES)])


def loader(X: Any) -> PackedLoader:
    """Training batches, a tenth of the cells being controls."""
    label = np.arange(CELLS) % CONDITIONS
    labels = np.where(label < CONDITIONS // 10, "control", np.char.add("G", label.astype(str)))
    ids = np.arange(CELLS).astype(str)
    cells = CellExpression("bench", X, labels, labels == "control", names(), ids, "lognorm")
    record = Pseudobulk.from_cells(cells)
    genes, blank = tuple(names().tolist()), torch.zeros(GENES)
    scales = dict.fromkeys(("change_center", "change_scale", "gene_center", "gene_scale"), blank)
    spec = CellsSpec(
        *("cells", genes, genes, (), blank, blank + 1, None, "bench"),
        **scales,
        groups=("all",),
        covariates=(),
        control_words=(),
        trained_perturbations=TrainedPerturbations((), ()),
        input_scale="lognorm",
        library=None,
        pseudobulk=False,
        set_size=SIZE,
        input_cells=SIZE,
        eval_sets=1,
    )
    sets = TrainingSets(record, spec, np.arange(len(record)))
    return PackedLoader(sets, SetOrder(sets, shuffle=True), SETS)


def endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from batches


def rate(batches: Iterator[Any], count: Callable[[Any], int], n: int) -> float:
    """Cells a second of the processor."""
    start = time.process_time()
    cells = sum(count(next(batches)) for _ in range(n))
    return cells / (time.process_time() - start)


def dense(batch: Any) -> int:
    """Cells of a batch of ``AnnLoader``."""
    X = batch.X  # read once: each time it is read it is made anew
    assert X.dtype == torch.float32
    assert not X.is_sparse
    return len(X)


def left_sparse(batch: Any) -> int:
    """Cells of a batch of ``AnnLoader`` that it does not convert."""
    X = batch.X
    assert sparse.issparse(X)
    return X.shape[0]


def received(batch: CellSetBatch) -> int:
    """Cells of a batch of ours, as the model receives it."""
    assert all(isinstance(each, SparseRows) for each in (batch.input_cells, batch.perturbed))
    return sum(each.shape[0] * each.shape[1] for each in (batch.input_cells, batch.perturbed))


def made_dense(batch: CellSetBatch) -> int:
    """The same, after all cells were made dense."""
    return sum(each.dense().shape[:2].numel() for each in (batch.input_cells, batch.perturbed))
