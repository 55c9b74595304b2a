"""The forest plot: every system's value and interval on the metrics that are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchcell.metrics.evaluate import Evaluation
from torchcell.metrics.registry import metric
from torchcell.metrics.results import Results
from torchcell.report.layout import compared_names, number, role
from torchcell.report.plots import COLOUR, INK, RULE, canvas

MOST_PANELS = 8


def forest(evaluation: Evaluation, results: Results) -> Figure | None:
    """A panel per metric that is compared; no skill is dotted, the ceiling green, a value off the scale an arrow."""
    names = compared_names(evaluation)[:MOST_PANELS]
    systems = list(reversed(results.ordered))
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure, axes = canvas(1.8 + 1.7 * columns, rows * (0.75 + 0.25 * len(systems)), columns, rows, sharey=True)
    for one, (name, scored) in zip(axes.flat, names, strict=False):
        rows_of = evaluation.table[evaluation.table.metric == name].set_index("system").loc[systems]
        _panel(one, rows_of, scored, name)
    for one in axes.flat[len(names) :]:
        one.set_visible(False)
    for one in axes[:, 0]:
        one.set_yticks(range(len(systems)), systems)
        for label, system in zip(one.get_yticklabels(), systems, strict=True):
            if system == results.model:
                label.set(fontweight="bold", color=COLOUR["model"])
    return figure


def _panel(one: Axes, rows: pd.DataFrame, results: Results, name: str) -> None:
    output, _, short = name.rpartition("/")
    measure = metric(short, results.task)
    t = results.outputs.index(output) if output and not results.per_gene else 0
    floor = measure.no_skill_value(np.asarray(results.measured)[:, t], results.context)
    low, high = _scale(rows, results.model, floor)
    numbers = rows[["value", "low", "high", "n_undefined"]].to_numpy(dtype=float)
    for place, (system, (value, start, stop, undefined)) in enumerate(zip(rows.index, numbers, strict=True)):
        kind = role(results, str(system))
        # White behind the words: the grid and the no-skill line would run through them.
        said: dict[str, Any] = {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8}}
        said |= {
            "transform": one.get_yaxis_transform(),
            "fontsize": 7,
            "color": COLOUR[kind],
            "va": "center",
        }
        if np.isnan(value):
            one.text(0.02, place, f"undefined ({undefined:,.0f})", style="italic", **said)
        elif value < low:
            one.text(0.02, place, f"◂ {number(value)}", **said)
        elif value > high:
            one.text(0.98, place, f"{number(value)} ▸", ha="right", **said)
        else:
            if not np.isnan(start):
                one.plot([start, stop], [place, place], color=COLOUR[kind], lw=1.8, solid_capstyle="round")
            one.plot(value, place, "D" if kind == "model" else "o", color=COLOUR[kind], ms=5)
    if not np.isnan(floor) and low <= floor <= high:
        one.axvline(floor, color=INK, lw=0.9, ls=(0, (1, 2)), zorder=0)
    one.set(xlim=(low, high), ylim=(-0.6, len(rows) - 0.4))
    title = f"{short} {'↑' if measure.higher_is_better else '↓'}"
    one.set_title(f"{output}\n{title}" if output else title, fontsize=9, loc="left")
    one.grid(axis="x", color=RULE, lw=0.5)
    one.set_axisbelow(True)
    one.locator_params(axis="x", nbins=3)


def _scale(rows: pd.DataFrame, model: str, floor: float) -> tuple[float, float]:
    """A scale for the middle systems, the model and no skill; a hopeless system doesn't set it."""
    known = rows[["low", "value", "high"]].to_numpy(dtype=float)
    values = rows.value.to_numpy(dtype=float)
    kept = [floor, *rows.loc[model, ["low", "value", "high"]].to_numpy(dtype=float)]
    kept += list(np.nanpercentile(values, [25, 75])) if not np.isnan(values).all() else []
    kept = [value for value in kept if not np.isnan(value)] or [0.0, 1.0]
    low, high = min(kept), max(kept)
    room = (high - low) or abs(high) or 1.0
    near = known[(known >= low - room) & (known <= high + room)]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.06 * ((high - low) or room)
    return low - margin, high + margin
