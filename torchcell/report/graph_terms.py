"""What the graph terms of a transformer did: how much of each network its tied head shows, before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from torchcell.report.plots import BLUE, GREY, canvas
from torchcell.report.sections import Section

COLUMNS = (
    "relation",
    "layer",
    "head",
    "lambda",
    "KL or BCE",
    "edge recall before",
    "edge recall after",
    "share of loss",
)


def graph_term_section(rows: Sequence[Sequence[Any]], history: pd.DataFrame | None) -> Section:
    """A bar a tied head, and the table.

    Args:
        rows: In the order of ``COLUMNS`` but the last, one a tie; NaN where a value is not known, as the recall before
            training is not where a run goes on.
        history: One row an epoch; the last one has each relation's share of the objective.
    """
    shares = [math.nan if history is None else _last(history, f"train/share/graph_{row[0]}") for row in rows]
    table = pd.DataFrame([(*row, share) for row, share in zip(rows, shares, strict=True)], columns=list(COLUMNS))
    return Section(
        title="How much of each network the tied heads show",
        text="Edge recall is the share of a gene's true neighbours among its degree highest attention weights.",
        figure=_bars(table),
        table=table,
        name="edge_recall",
        caption="Edge recall of each tied head before training and after.",
    )


def _last(history: pd.DataFrame, column: str) -> float:
    """A relation whose lambda is 0 has no share."""
    return float(history[column].iloc[-1]) if column in history else 0.0


def _bars(table: pd.DataFrame) -> Figure:
    figure, axes = canvas(6.2, 0.8 + 0.42 * len(table))
    place = np.arange(len(table))
    for shift, column, colour in ((-0.18, "edge recall before", GREY), (0.18, "edge recall after", BLUE)):
        values = table[column].to_numpy(dtype=float)
        axes[0, 0].barh(place + shift, values, 0.34, color=colour, label=column.removeprefix("edge recall "))
    names = [f"{row.relation}  (layer {row.layer}, head {row.head})" for row in table.itertuples()]
    axes[0, 0].set_yticks(place, names)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set(xlim=(0, 1), xlabel="edge recall")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure
