"""Memory and time of a step against the number of genes, for each kind of attention within cells.

    python experiments/006-gene-subset-expression/attention_memory.py -o FOLDER [--genes 200 500 1000] [--threads 1]

Four cells, d = 64, 2 layers of 4 heads, 16 neighbors a gene, forward and backward, on a CPU, each point in a process
of its own. ``peak_mb`` is the most bytes of tensors at once, from torch's record of allocations, and ``resident_mb``
how far the process's resident memory rose. ``seconds`` is time of the processor, as others may share it. ``scores``
writes out the matrix of each head, beyond 1,000 genes for one cell, taken four times; ``full`` is torch's fused
kernel, which keeps no matrix. The slope is that of log against log from 500 genes on: 1 is linear, 2 quadratic.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from torchcell.report.plots import BLUE, GREY, INK, ORANGE, canvas
from torchcell.training.profile import PeakMemory

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))
import gene_attention  # the bench holds the step that is measured

WAYS = {"scores": "dense scores", "full": "full", "neighbors": "neighbors", "induced": "induced"}
LOOKS = {
    "scores": (GREY, "scores written out"),
    "full": (INK, "full, fused kernel"),
    "neighbors": (BLUE, "neighbors"),
}
LOOKS["induced"] = (ORANGE, "induced points")
GENES = (200, 500, 1_000, 2_500, 5_000)
SLOPE_FROM = 500


def main() -> None:
    """Measure each point in a process of its own; table, slopes and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for attention_memory.csv and .png")
    parser.add_argument("--genes", type=int, nargs="+", default=GENES)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    rows = []
    for way in WAYS:
        for n_genes in given.genes:
            rows.append({"attention": way, "genes": n_genes} | in_a_process(way, n_genes, given.threads))
            print(
                "{attention:>11} {genes:>6,} genes {seconds:>8.2f} s {peak_mb:>8,.0f} MB".format(**rows[-1]), flush=True
            )
    table = pd.DataFrame(rows)
    given.out.mkdir(parents=True, exist_ok=True)
    table.round(3).to_csv(given.out / "attention_memory.csv", index=False)
    draw(table, given.out / "attention_memory.png")
    say(table)


def in_a_process(way: str, n_genes: int, threads: int) -> dict[str, float]:
    """What ``point`` finds, in a copy of this process, which itself never computes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as alone:
        return alone.submit(point, way, n_genes, threads).result()


def point(way: str, n_genes: int, threads: int) -> dict[str, float]:
    """Seconds and megabytes of a step."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    with PeakMemory(torch.device("cpu")) as memory:
        seconds, peak = gene_attention.measured(WAYS[way], n_genes)
    return {"seconds": seconds, "peak_mb": peak, "resident_mb": memory.megabytes}


def slope(table: pd.DataFrame, column: str) -> float:
    """Of log against log."""
    held = table[table.genes >= SLOPE_FROM]
    return float(np.polyfit(np.log(held.genes), np.log(held[column]), 1)[0]) if len(held) > 1 else float("nan")


def draw(table: pd.DataFrame, path: Path) -> None:
    """Memory and time, log against log, with the slopes in the legend."""
    figure, axes = canvas(9.0, 3.6, columns=2)
    for axis, column, label in zip(
        axes[0], ("peak_mb", "seconds"), ("peak memory of tensors, MB", "time, s"), strict=True
    ):
        for way, (color, name) in LOOKS.items():
            part = table[table.attention == way]
            told = f"{name}, slope {slope(part, column):.2f}"
            style = "--" if way == "induced" else "-"  # it lies on others
            axis.loglog(part.genes, part[column], style, color=color, lw=1.6, marker="o", ms=3, label=told)
        axis.set(xlabel="genes", ylabel=label)
        genes = sorted(table.genes.unique())
        axis.set_xticks(genes, [f"{n:,}" for n in genes])
        axis.set_xticks([], minor=True)
        axis.legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=150)


def say(table: pd.DataFrame) -> None:
    """Slopes, and what sparse attention saves at the most genes."""
    for way in WAYS:
        part = table[table.attention == way]
        print(f"{way:>11}: slope of memory {slope(part, 'peak_mb'):.2f}, of time {slope(part, 'seconds'):.2f}")
    last = table[table.genes == table.genes.max()].set_index("attention")
    for way in ("scores", "full"):
        ratio = last.loc[way, ["peak_mb", "seconds"]] / last.loc["neighbors", ["peak_mb", "seconds"]]
        print(
            f"neighbors against {way} at {table.genes.max():,} genes: "
            f"{ratio.peak_mb:.1f}x less memory, {ratio.seconds:.1f}x less time"
        )


if __name__ == "__main__":
    main()
