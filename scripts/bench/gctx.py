"""Reading wells of a GCTX file against h5py alone: the same rows, nothing told of them, no missing value marked."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np
from rich.console import Console
from rich.table import Table
from target import Target, at_most, seconds

from torchcell.io.gct import ABOUT_GENES, ABOUT_WELLS, CHUNK, MATRIX, Gctx

N_SAMPLES, N_GENES, N_READ = 40_000, 978, 10_000


def run() -> list[Target]:
    """10,000 of 40,000 wells over 978 genes: a span of neighbors, scattered rows, and in chunks of samples."""
    table = Table(title=f"{N_READ:,} of {N_SAMPLES:,} wells x {N_GENES} genes of a GCTX file", title_justify="left")
    for column in ("rows", "h5py s", "ours s", "ratio"):
        table.add_column(column, justify="right")
    targets = []
    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder) / "wells.gctx")
        scattered = np.sort(np.random.default_rng(0).permutation(N_SAMPLES)[:N_READ])
        with Gctx(path) as file, h5py.File(path) as raw:
            matrix = raw[MATRIX]
            cases = {
                "a span": (lambda: matrix[:N_READ], lambda: file.read(slice(0, N_READ))),
                "scattered": (lambda: matrix[scattered], lambda: file.read(scattered)),
                "all, in chunks": (
                    lambda: [matrix[a : a + CHUNK] for a in range(0, N_SAMPLES, CHUNK)],
                    lambda: [block for _, block in file.chunks()],
                ),
            }
            for name, (theirs, ours) in cases.items():
                slow, fast = seconds(theirs), seconds(ours)
                table.add_row(name, f"{slow:.3f}", f"{fast:.3f}", f"{fast / slow:.2f}x")
                targets.append(at_most(f"reading GCTX against h5py, {name}", fast / slow, 1.5, "x"))
    Console(width=120).print(table)
    return targets


def _write(path: Path) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file[MATRIX] = rng.normal(8, 2, (N_SAMPLES, N_GENES)).astype(np.float32)
        file[f"{ABOUT_WELLS}/id"] = np.array([f"W{i}" for i in range(N_SAMPLES)], dtype="S")
        file[f"{ABOUT_GENES}/id"] = np.array([f"G{i}" for i in range(N_GENES)], dtype="S")
    return path
