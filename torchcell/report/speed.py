"""What a training step costs, by representation and phase: the table on the screen, and the bars."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from torchcell.report.layout import number
from torchcell.report.plots import BLUE, GREEN, INK, ORANGE, SKY, canvas

COLUMNS = {
    "representation": "representation",
    "phase": "phase",
    "samples_per_s": "samples/s",
    "ms_per_step": "ms a step",
    "bytes_per_batch": "bytes a batch",
    "peak_mb": "peak MB",
    "nodes_per_sample": "nodes a sample",
    "edges_per_sample": "edges a sample",
    "relative_to_naive": "against naive",
    "steps": "steps",
}
"""Columns of the table and their heads; further columns say how it was measured."""

COLOURS = (SKY, GREEN, ORANGE, BLUE)


def show(table: pd.DataFrame, title: str) -> None:
    """Print the table with a caption that says how it was measured."""
    screen = Table(title=title, title_justify="left", caption=caption(table), caption_justify="left")
    for name, head in COLUMNS.items():
        screen.add_column(head, justify="left" if name in ("representation", "phase") else "right")
    for label, rows in table.groupby("representation", sort=False):
        for place, (_, row) in enumerate(rows.iterrows()):
            cells = [_cell(column, row[column]) for column in list(COLUMNS)[2:]]
            screen.add_row("" if place else str(label), row["phase"], *cells, end_section=place == len(rows) - 1)
    (Console() if sys.stdout.isatty() else Console(width=150)).print(screen)


def caption(table: pd.DataFrame) -> str:
    """Device, versions, threads, processes and batch sizes; what the columns mean."""
    last = table.iloc[-1]  # the first rows may be the naive way's
    said = [
        f"{last['device']}, torch {last['torch']}, {last['processes']} process(es) of {last['threads']} thread(s); "
        f"{last['batch_size']:,.0f} samples a batch and process, samples/s of all processes together.",
        "A phase contains the one before it. Peak: " + _peak_means(last["device"] == "cpu"),
    ]
    naive = table[table["representation"] == "naive"]
    if len(naive):
        said.append(
            "naive: a PyG HeteroData with all edges for each sample, and a network of the same width and depth without "
            f"merge and heads; one process, {naive['batch_size'].iloc[0]:,.0f} samples a batch."
        )
    return "\n".join(said)


def bars(table: pd.DataFrame, title: str) -> Figure:
    """Samples a second as bars on a logarithmic scale: a group a representation, a colour a phase."""
    names, phases = list(dict.fromkeys(table["representation"])), list(dict.fromkeys(table["phase"]))
    figure, axes = canvas(1.0 + 1.6 * max(len(names), 3), 4.2)
    one, width = axes[0, 0], 0.8 / len(phases)
    rate = table.set_index(["representation", "phase"])["samples_per_s"]
    bottom = 10 ** np.floor(np.log10(table["samples_per_s"].min()) - 0.3)
    for k, (phase, colour) in enumerate(zip(phases, COLOURS, strict=False)):
        heights = np.array([rate[name, phase] for name in names], dtype=float)
        place = np.arange(len(names)) + (k - (len(phases) - 1) / 2) * width
        one.bar(place, heights - bottom, 0.9 * width, bottom=bottom, color=colour, label=phase)
        for x, height in zip(place, heights, strict=True):
            one.annotate(
                _short(height), (x, height), (0, 2), textcoords="offset points", ha="center", fontsize=6.5, color=INK
            )
    one.set_yscale("log")
    one.set_ylim(bottom, 4 * table["samples_per_s"].max())
    size = table.groupby("representation")["batch_size"].first()
    one.set_xticks(range(len(names)), [f"{name}\nB = {size[name]:,.0f}" for name in names])
    one.set(ylabel="samples / s")
    one.set_title(title, fontsize=9, loc="left", color=INK, pad=22)
    one.legend(frameon=False, fontsize=8, ncols=len(phases), loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _peak_means(on_cpu: bool) -> str:
    if on_cpu:
        return "growth of the resident set in that phase, a lower bound."
    return "the most that tensors held on the GPU, model and graph too."


def _cell(column: str, value: float | None) -> str:
    if value is None or np.isnan(value):
        return ""
    if column in ("bytes_per_batch", "steps") or value == 0:
        return f"{value:,.0f}"
    return number(float(value)) + ("x" if column == "relative_to_naive" else "")


def _short(value: float) -> str:
    """Three significant digits with k or M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return number(value / size) + unit
    return number(value)
