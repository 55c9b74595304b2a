"""Cost of a training step by representation and phase: the table for the terminal, and a page with figures."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.table import Table

from torchcell.io.console import Console
from torchcell.report.layout import number
from torchcell.report.plots import BLUE, GREEN, INK, ORANGE, SKY, canvas
from torchcell.report.sections import Section

COLUMNS = {
    "representation": "representation",
    "phase": "phase",
    "samples_per_s": "samples/s",
    "ms_per_step": "ms a step",
    "busy_ms": "busy ms",
    "bytes_per_batch": "bytes a batch",
    "peak_mb": "peak MB",
    "tensors_mb": "tensors MB",
    "nodes_per_sample": "nodes a sample",
    "edges_per_sample": "edges a sample",
    "relative_to_naive": "against naive",
    "time_to_reference": "time / {}",
    "memory_to_reference": "tensors / {}",
    "steps": "steps",
}
"""Columns of the table and their titles; ``{}`` is the reference. Further columns are for the caption."""

RATIOS = ("relative_to_naive", "time_to_reference", "memory_to_reference")

COLORS = (SKY, GREEN, ORANGE, BLUE)


def show(table: pd.DataFrame, title: str) -> None:
    """Print the table with a caption on the measurement."""
    screen = Table(title=title, title_justify="left", caption=caption(table), caption_justify="left")
    shown = _as_text(table)
    for head in map(str, shown):
        screen.add_column(head, justify="left" if head in ("representation", "phase") else "right")
    for label, rows in shown.groupby("representation", sort=False):
        for i, cells in enumerate(rows.iloc[:, 1:].to_numpy().tolist()):
            screen.add_row("" if i else str(label), *cells, end_section=i == len(rows) - 1)
    (Console() if sys.stdout.isatty() else Console(width=160)).print(screen)


def sections(table: pd.DataFrame, title: str) -> list[Section]:
    """Sections of the page: bars of all rows and, where there is a reference, the full step against it."""
    text = caption(table)
    speed = [Section("Samples a second", text, bars(table, title), _as_text(table), "speed", "Each phase of each row.")]
    reference, full = _reference(table), _full_steps(table)
    if reference is None or full["memory_to_reference"].isna().all():
        return speed
    text = (
        f"A full step of each row against {reference}. Time is that of the processor on a CPU; memory is the most that "
        "tensors take at once in the step, above weights and the optimizer's state."
    )
    return [
        Section(f"Against {reference}", text, against(full), None, "against", "A full step of each row."),
        *speed,
    ]


def summary(table: pd.DataFrame) -> str:
    """One line: the row with the least memory and the fastest one, or the number of rows."""
    reference, full = _reference(table), _full_steps(table)
    if reference is None or full["memory_to_reference"].isna().all():
        return f"{len(full)} row(s) measured"
    least, fastest = (full.sort_values(column).iloc[0] for column in ("memory_to_reference", "time_to_reference"))
    return (
        f"a full step against {reference}: least memory {least['representation']}, "
        f"{number(least['memory_to_reference'])}x of it; least time {fastest['representation']}, "
        f"{number(fastest['time_to_reference'])}x of it"
    )


def against(full: pd.DataFrame) -> Figure:
    """Milliseconds and MB of a full step, a bar for each row, labeled with the ratio to the reference."""
    figure, axes = canvas(8.4, 0.9 + 0.32 * len(full), columns=2, sharey=True)
    sides = {"busy_ms": ("time_to_reference", "busy ms a step"), "tensors_mb": ("memory_to_reference", "MB of tensors")}
    for axis, (column, (ratio, label)) in zip(axes[0], sides.items(), strict=True):
        at_reference = full["representation"] == full["reference"]
        axis.barh(full["representation"], full[column], color=[SKY if same else BLUE for same in at_reference])
        for i, (value, times) in enumerate(zip(full[column], full[ratio], strict=True)):
            text = f"{number(float(value))}  ({number(float(times))}x)"
            axis.annotate(text, (value, i), (3, 0), textcoords="offset points", va="center", fontsize=7, color=INK)
        axis.set(xlabel=label, xlim=(0, 1.45 * full[column].max()))
    axes[0, 0].invert_yaxis()  # of both, as they share it
    return figure


def caption(table: pd.DataFrame) -> str:
    """Device, versions, threads, processes and batch sizes, and the meaning of the columns."""
    last = table.iloc[-1]  # the first rows may be of the naive representation
    sentences = [
        f"{last['device']}, torch {last['torch']}, {last['processes']} process(es) of {last['threads']} thread(s); "
        f"{last['batch_size']:,.0f} samples a batch and process, samples/s of all processes together.",
        "A phase contains the one before it. Peak: " + _peak_means(last["device"] == "cpu"),
        "Busy: time of the processor on a CPU, which others may share. Tensors: the most that they took at once in a "
        "step, above weights and the optimizer's state.",
    ]
    naive = table[table["representation"] == "naive"]
    if len(naive):
        sentences.append(
            "naive: a PyG HeteroData with all edges for each sample, and a network of the same width and depth without "
            f"merge and heads; one process, {naive['batch_size'].iloc[0]:,.0f} samples a batch."
        )
    return "\n".join(sentences)


def bars(table: pd.DataFrame, title: str) -> Figure:
    """Samples a second as bars on a logarithmic scale: a group a representation, a color a phase."""
    names, phases = list(dict.fromkeys(table["representation"])), list(dict.fromkeys(table["phase"]))
    figure, axes = canvas(1.0 + 1.6 * max(len(names), 3), 4.2)
    one, width = axes[0, 0], 0.8 / len(phases)
    rate = table.set_index(["representation", "phase"])["samples_per_s"]
    bottom = 10 ** np.floor(np.log10(table["samples_per_s"].min()) - 0.3)
    for k, (phase, color) in enumerate(zip(phases, COLORS, strict=False)):
        heights = np.array([rate[name, phase] for name in names], dtype=float)
        place = np.arange(len(names)) + (k - (len(phases) - 1) / 2) * width
        one.bar(place, heights - bottom, 0.9 * width, bottom=bottom, color=color, label=phase)
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
    return "the most that tensors took on the GPU, with model and graph."


def _reference(table: pd.DataFrame) -> str | None:
    """The row that others are compared with, if it was measured."""
    names = table["reference"].dropna()
    return str(names.iloc[0]) if len(names) else None


def _full_steps(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last phase."""
    return table[table["phase"] == table["phase"].iloc[-1]]


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The shown columns with their titles; those without any value are left out."""
    reference = _reference(table)
    shown = {"representation": table["representation"].astype(str), "phase": table["phase"].astype(str)}
    for column, head in list(COLUMNS.items())[2:]:
        if table[column].notna().any():
            shown[head.format(reference)] = table[column].map(lambda value, column=column: _cell(column, value))
    return pd.DataFrame(shown)


def _cell(column: str, value: float | None) -> str:
    if value is None or np.isnan(value):
        return ""
    if column in ("bytes_per_batch", "steps") or value == 0:
        return f"{value:,.0f}"
    return number(float(value)) + ("x" if column in RATIOS else "")


def _short(value: float) -> str:
    """Three significant digits with k or M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return number(value / size) + unit
    return number(value)
