"""Start, speed and memory of cells from disk as their number grows; writes ``cells.csv`` beside this file.

``python experiments/007-scale/curve.py FOLDER 50000 200000 ...``; FOLDER takes the made-up files, and keeps them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "scripts" / "bench"))

from cells_on_disk import STORES, alone, bookkeeping, made, scdataset, twice  # noqa: E402


def main() -> None:
    """Measure each size, and write the table after each."""
    folder, rows = Path(sys.argv[1]), []
    for n in map(int, sys.argv[2:]):
        files = {ending: folder / f"{n}.{ending}" for ending in ("h5ad", "zarr")}
        if not files["zarr"].exists():
            files = made(n, folder)
        held = alone(bookkeeping, files["h5ad"], n)
        for ending, on_disk, sampling in STORES:
            cold, warm = twice(folder, files[ending], on_disk, sampling)
            rows.append(
                {
                    "cells": n,
                    "conditions": held["conditions"],
                    "store": ending if on_disk else f"{ending} in memory",
                    "sampling": sampling,
                    "cells_per_cpu_s": round(warm["speed"]),
                    "first_epoch_cells_per_cpu_s": round(warm["first_epoch"]),
                    "first_start_cpu_s": round(cold["start"], 1),
                    "passes_at_first_start": round(cold["passes"], 2),
                    "warm_start_cpu_s": round(warm["start"], 1),
                    "passes_at_warm_start": round(warm["passes"], 2),
                    "peak_mb_beyond_imports": round(warm["mb"]),
                    "file_mb": round(files["h5ad"].stat().st_size / 1e6),
                    "bookkeeping_bytes_a_cell": round(held["held"]),
                    "bookkeeping_peak_bytes_a_cell": round(held["peak"]),
                }
            )
            print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(HERE / "cells.csv", index=False)
        try:
            print("scdataset", n, round(alone(scdataset, files["h5ad"])), flush=True)
        except ImportError:
            print("scdataset is not installed")


if __name__ == "__main__":
    main()
