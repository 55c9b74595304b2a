"""Screens of 50,000, 500,000 and 4.05 M pairs on the way to their first batch: seconds, memory, and how both grow.

Each size is read in two processes with a cache of their own: the first finds nothing there (cold), the second what the
first has kept (warm). Seconds are the processor's, as others share it; memory is the peak over what imports take.
``python scripts/bench/screen_table.py 50000 500000 4050000 20000000 -o screens.csv`` measures other sizes.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from make_screen import write_screen
from rich.console import Console
from rich.table import Table
from target import Target, at_most

SIZES = (50_000, 500_000, 4_050_000)
WANTED = {"read": 5.0, "split": 3.0, "cold": 10.0, "warm": 3.0, "read_mb": 1000.0}
"""Of the largest of ``SIZES``: seconds from the file to a record, of a split, from the file to the first batch without
and with what was kept, and megabytes of the peak until the record is there."""
TIMES_PYARROW = 4.0
"""As many times the seconds of ``pyarrow.csv`` alone; a ratio on a busy machine, where seconds are longer."""
FIGURES = ("pyarrow", "read", "split", "random", "cold", "warm", "read_mb", "cold_mb", "warm_mb")


def run() -> list[Target]:
    """The largest size against what is wanted; a table of all."""
    rows = [measured(n) for n in SIZES]
    show(rows)
    what = {
        "read": "from file to record",
        "split": "split by query genes",
        "cold": "file to first batch, cold",
        "warm": "file to first batch, warm",
        "read_mb": "peak over imports while read",
    }
    unit = {name: "MB" if name.endswith("mb") else "CPU s" for name in what}
    words = f"a screen of {SIZES[-1]:,} pairs, "
    targets = [at_most(words + what[name], rows[-1][name], WANTED[name], unit[name]) for name in what]
    times = rows[-1]["read"] / rows[-1]["pyarrow"]
    return [*targets, at_most(f"{words}read against pyarrow.csv alone", times, TIMES_PYARROW, "x")]


def measured(n: int) -> dict[str, float]:
    """All ``FIGURES`` of a screen of ``n`` pairs."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_screen(n, Path(folder) / "screen.csv")
        old = time.time() - 60  # one just written is not kept
        os.utime(path, (old, old))
        time.sleep(2.5)
        environment = os.environ | {"TORCHCELL_DATA": folder, "OMP_NUM_THREADS": "1"}
        runs = {}
        for mode in ("alone", "cold", "warm"):
            command = [sys.executable, __file__, "--one", mode, str(path)]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            runs[mode] = json.loads(done.stdout.splitlines()[-1])
    cold, warm = runs["cold"], runs["warm"]
    return {
        "pairs": n,
        "pyarrow": runs["alone"]["read"],
        **{name: cold[name] for name in ("read", "split", "random")},
        "cold": cold["read"] + cold["first"],
        "warm": warm["read"] + warm["first"],
        "read_mb": cold["read_mb"],
        "cold_mb": cold["first_mb"],
        "warm_mb": warm["first_mb"],
    }


def one(mode: str, path: Path) -> dict[str, float]:
    """Seconds and megabytes of one process."""
    import torch

    from torchcell.screen.datamodule import PerturbationDataModule
    from torchcell.screen.splits import SPLITS
    from torchcell.screen.table import read_screen

    torch.set_num_threads(1)
    before, found = _peak_mb(), {}

    def take(name: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        made = work()
        found[name], found[f"{name}_mb"] = time.process_time() - start, _peak_mb() - before
        return made

    if mode == "alone":
        from pyarrow import csv as arrow_csv

        take("read", lambda: arrow_csv.read_csv(path))
        return found
    screen = take("read", lambda: read_screen(path))
    keys = {"method": "query_disjoint", "n_folds": 5, "fold": 0, "seed": 0, "file": None}

    def first_batch() -> Any:
        data = PerturbationDataModule(screen, keys, batch_size=None)
        return next(iter(data.training_loader(True, 0, 1, data.batch_size)))

    take("first", first_batch)
    if mode == "cold":  # folds that nobody has made yet
        take("split", lambda: SPLITS.make(screen, "query_disjoint", fold=1))
        take("random", lambda: SPLITS.make(screen, "random", fold=1))
    return found


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show(rows: list[dict[str, float]]) -> None:
    """The figures of all sizes, and by what power of the number of pairs they grow between the last two."""
    table = Table(title="screens, CPU seconds and MB over imports", title_justify="left")
    table.add_column("pairs", justify="right")
    for name in FIGURES:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(f"{row['pairs']:,.0f}", *(f"{row[name]:,.3g}" for name in FIGURES))
    if len(rows) > 1:
        few, many = rows[-2:]
        times = math.log(many["pairs"] / few["pairs"])
        slopes = [math.log(max(many[name], 1e-3) / max(few[name], 1e-3)) / times for name in FIGURES]
        table.add_row("power", *(f"{slope:.2f}" for slope in slopes))
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=list(SIZES), help="numbers of pairs")
    parser.add_argument("-o", "--out", help="a csv file for the figures")
    parser.add_argument("--one", choices=("alone", "cold", "warm"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one, Path(arguments.sizes[0]))))
        return
    rows = [measured(int(n)) for n in arguments.sizes]
    show(rows)
    if arguments.out:
        with open(arguments.out, "w", newline="") as file:
            writer = csv.DictWriter(file, ("pairs", *FIGURES))
            writer.writeheader()
            writer.writerows({name: round(value, 3) for name, value in row.items()} for row in rows)


if __name__ == "__main__":
    main()
