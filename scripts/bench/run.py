"""``make bench``: every measured target beside its figure; leaves with 1 when one is missed.

Ratios are taken within one run on one machine, with one thread as where the targets come from: on two shared cores a
second thread waits more than it works. Each bench has a process of its own, since an earlier one leaves its marks on
the memory allocator. Options: ``--only loader`` runs one bench.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import torch
from rich.console import Console
from rich.table import Table
from target import Target

BENCHES = (
    "startup",
    "loader",
    "screen_table",
    "training_step",
    "ddp",
    "representations",
    "perturbed_cell",
    "transformer",
    "hgt",
    "gctx",
    "chemoe",
    "gene_attention",
    "cells",
    "cells_on_disk",
)
"""Modules beside this one, each with a function ``run``."""


def measured(name: str) -> list[Target]:
    """The rows of one bench."""
    torch.set_num_threads(1)
    rows: list[Target] = importlib.import_module(name).run()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(BENCHES), help="run one bench")
    only = parser.parse_args().only
    targets: list[Target] = []
    for name in BENCHES:
        if only in (None, name):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                targets += alone.submit(measured, name).result()
    table = Table(title="targets", title_justify="left")
    for column in ("what", "figure", "target", ""):
        table.add_column(column)
    for target in targets:
        table.add_row(target.what, target.figure, target.wanted, "[green]met" if target.met else "[red]missed")
    Console(width=150).print(table)
    return int(not all(target.met for target in targets))


if __name__ == "__main__":
    sys.exit(main())
