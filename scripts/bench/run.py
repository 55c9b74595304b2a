"""``make bench``: every measured target beside its figure; leaves with 1 when one is missed.

Ratios are taken within one run on one machine, with one thread as where the targets come from: on two shared cores a
second thread waits more than it works. Options: ``--only loader`` runs one bench.
"""

from __future__ import annotations

import argparse
import sys

import cells
import chemoe
import ddp
import gctx
import gene_attention
import hgt
import loader
import perturbed_cell
import representations
import startup
import torch
import training_step
import transformer
from rich.console import Console
from rich.table import Table
from target import Target

BENCHES = {
    "startup": startup.run,
    "loader": loader.run,
    "training_step": training_step.run,
    "ddp": ddp.run,
    "representations": representations.run,
    "perturbed_cell": perturbed_cell.run,
    "transformer": transformer.run,
    "hgt": hgt.run,
    "gctx": gctx.run,
    "chemoe": chemoe.run,
    "gene_attention": gene_attention.run,
    "cells": cells.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(BENCHES), help="run one bench")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    targets: list[Target] = []
    for name, bench in BENCHES.items():
        if only in (None, name):
            targets += bench()
    table = Table(title="targets", title_justify="left")
    for column in ("what", "figure", "target", ""):
        table.add_column(column)
    for target in targets:
        table.add_row(target.what, target.figure, target.wanted, "[green]met" if target.met else "[red]missed")
    Console(width=150).print(table)
    return int(not all(target.met for target in targets))


if __name__ == "__main__":
    sys.exit(main())
