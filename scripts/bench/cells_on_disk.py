"""Cells of a made-up screen (``make_cells``) from disk: start, batches and memory at two sizes.

Each figure comes from a process of its own. Seconds are the processor's, one thread. Cells are those of a whole epoch,
controls among them: the second epoch of the process, since the first has half a second of its own, whatever the store.
``start`` is from the file to the first batch, cold (the file is read once) and warm (what was found is kept).
Bookkeeping is all that is held a cell while the expression stays on disk. ``scdataset`` races over the same file where
it is installed: cells as they come, in blocks of 64, without sets.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import resource
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from make_cells import write_cells
from rich.console import Console
from rich.table import Table
from target import Target, at_least, at_most

SIZES = (50_000, 200_000)
SPLIT = {"method": "unseen_perturbation", "n_folds": 5, "fold": 0, "seed": 0}
STORES = (("h5ad", True, "rows"), ("h5ad", True, "blocks"), ("zarr", True, "rows"), ("zarr", True, "blocks"),
          ("h5ad", False, "rows"))  # fmt: skip
"""Of which file, whether it stays on disk, and ``data.sampling``."""


def run() -> list[Target]:
    """The rows of the bench."""
    table = Table(title="cells from disk", title_justify="left")
    for column in ("cells", "store", "sampling", "cells/CPU s", "cold start s", "warm start s", "MB beyond imports"):
        table.add_column(column, justify="right")
    held, speed, passes = [], {}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for n in SIZES:
            files = made(n, Path(folder))
            held.append(alone(bookkeeping, files["h5ad"], n))
            for ending, on_disk, sampling in STORES:
                cold, warm = twice(Path(folder), files[ending], on_disk, sampling)
                key = f"{ending}{'' if on_disk else ' in memory'}"
                speed[key, sampling], passes = warm["speed"], max(passes, cold["passes"])
                figures = (warm["speed"], cold["start"], warm["start"], warm["mb"])
                table.add_row(f"{n:,}", key, sampling, *(f"{figure:,.{i % 2}f}" for i, figure in enumerate(figures)))
        if importlib.util.find_spec("scdataset") is None:
            print("scdataset is not installed: not raced")
        else:
            table.add_row(f"{n:,}", "h5ad", "scdataset", f"{alone(scdataset, files['h5ad']):,.0f}")
        in_memory = alone(epoch, files["h5ad"], False, "rows")["mb"] * 1e6 / files["h5ad"].stat().st_size
    Console(width=120).print(table)
    return [
        at_least("cells/CPU s of a prepared folder, blocks", speed["zarr", "blocks"], 200_000, ""),
        at_least("cells/CPU s of an h5ad as it is, blocks", speed["h5ad", "blocks"], 60_000, ""),
        at_most("bookkeeping, bytes a cell held", held[-1]["held"], 150, "bytes"),
        at_most(
            "bookkeeping's growth from 50,000 to 200,000 cells, a cell", held[-1]["held"] / held[0]["held"], 1.1, "x"
        ),
        at_most("passes over a file before the first batch, cold", passes, 1.05, "passes"),
        at_most("memory with all cells in it, of the file's size", in_memory, 2, "x"),
    ]


def made(n: int, folder: Path) -> dict[str, Path]:
    """An h5ad file of n cells and its prepared folder."""
    from torchcell.cells.prepare import prepare

    files = {ending: folder / f"{n}.{ending}" for ending in ("h5ad", "zarr")}
    write_cells(n, files["h5ad"])
    prepare(files["h5ad"], files["zarr"], ["perturbation"])
    time.sleep(3)  # a younger file may still change, and nothing is kept about it
    return files


def twice(folder: Path, path: Path, on_disk: bool, sampling: str) -> tuple[dict[str, float], dict[str, float]]:
    """``epoch`` where nothing is known about the file, and again."""
    os.environ["TORCHCELL_DATA"] = tempfile.mkdtemp(dir=folder)
    return alone(epoch, path, on_disk, sampling), alone(epoch, path, on_disk, sampling)


def alone(work: Callable[..., Any], *given: Any) -> Any:
    """What ``work`` returns in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def memory_mb() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def bookkeeping(path: Path, n: int) -> dict[str, float]:
    """Bytes a cell that conditions of cells on disk hold, and at most take while they are made."""
    from torchcell.cells.pseudobulk import Pseudobulk
    from torchcell.cells.table import MatrixOptions, read_cells

    read_cells(path, "counts", "control", matrix=MatrixOptions(backed=True))  # imports
    tracemalloc.start()
    cells = read_cells(path, "counts", "control", matrix=MatrixOptions(backed=True))
    record = Pseudobulk.grouped(cells.named_as_measured().validate_names(), (), 10, "drop", 0)
    record.own_sums  # noqa: B018  which cell belongs to which sum
    held, peak = tracemalloc.get_traced_memory()
    return {"held": held / n, "peak": peak / n, "conditions": len(record)}


def epoch(path: Path, on_disk: bool, sampling: str) -> dict[str, float]:
    """CPU seconds until the first batch, cells a CPU second of an epoch, passes over the file, MB beyond imports."""
    import torch

    from torchcell.cells.backed import BackedMatrix
    from torchcell.cells.datamodule import CellSetDataModule, SetOptions
    from torchcell.cells.table import MatrixOptions, cells_file

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    rows, stored = [0], BackedMatrix.stored

    def counted(self: BackedMatrix, at: Any) -> Any:
        rows[0] += len(at)
        return stored(self, at)

    BackedMatrix.stored = counted  # type: ignore[method-assign]
    before, start = memory_mb(), time.process_time()
    record = cells_file(path, "counts", "control", matrix=MatrixOptions(backed=on_disk))
    data = CellSetDataModule(record, SPLIT, sets=SetOptions(), sampling=sampling)  # type: ignore[arg-type]
    loader = data.train_dataloader()
    at_start, first = rows[0], 0.0
    speeds = []
    for _ in range(2):
        begun, n = time.process_time(), 0
        for batch in loader:
            first = first or time.process_time()
            n += sum(rows.shape[0] * rows.shape[1] for rows in (batch.input_cells, batch.perturbed))
        speeds.append(n / (time.process_time() - begun))
    return {
        "start": first - start,
        "speed": speeds[1],
        "first_epoch": speeds[0],
        "passes": at_start / len(record.cells),
        "mb": memory_mb() - before,
    }


def scdataset(path: Path) -> float:
    """Cells a CPU second of scDataset in blocks of 64, 256 of them at a time."""
    import anndata
    from scdataset import BlockShuffling, scDataset
    from torch.utils.data import DataLoader

    class Rows:
        """What scDataset reads from: rows by their positions."""

        X = anndata.read_h5ad(path, backed="r").X

        def __len__(self) -> int:
            return int(self.X.shape[0])

        def __getitem__(self, at: Any) -> Any:
            return self.X[at]

    data = scDataset(Rows(), BlockShuffling(block_size=64), batch_size=1024, fetch_factor=16)
    start, n = time.process_time(), 0
    for batch in DataLoader(data, batch_size=None):
        n += batch.shape[0]
    return n / (time.process_time() - start)
