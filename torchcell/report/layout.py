"""The table of scores as blocks of cells, shown alike on the screen and in the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from torchcell.metrics.evaluate import Evaluation
from torchcell.metrics.registry import HEADLINE, Metric, profile
from torchcell.metrics.results import Results


@dataclass(frozen=True)
class Cell:
    """One value: ``text``, its ``interval`` (empty where it has none), and what it is among its column."""

    text: str
    interval: str = ""
    best: bool = False
    undefined: bool = False


@dataclass(frozen=True)
class Row:
    """One system; ``role`` is ``model``, ``baseline``, ``ceiling`` or ``no skill``."""

    system: str
    role: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Block:
    """The table of one output.

    Attributes:
        output: Its name; empty where there is only one.
        metrics: The columns.
        rows: Model, baselines, ceiling, then what no skill scores.
        prevalence: Share of positives, for a binary task.
    """

    output: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    prevalence: float | None = None

    @property
    def heads(self) -> tuple[str, ...]:
        """Column titles; the arrow says which way is better."""
        return tuple(f"{one.name} {'↑' if one.higher_is_better else '↓'}" for one in self.metrics)


def blocks(evaluation: Evaluation, results: Results) -> list[Block]:
    """One block per output; one for all genes of an expression task."""
    table = evaluation.table.set_index(["system", "metric"])
    if results.task == "expression" or len(results.outputs) == 1:
        return [_block(table, results, "", 0)]
    return [_block(table, results, name, t) for t, name in enumerate(results.outputs)]


def role(results: Results, system: str) -> str:
    """What a system is in the comparison."""
    if system == results.model:
        return "model"
    return "ceiling" if system == results.ceiling else "baseline"


def best_baseline(evaluation: Evaluation, results: Results) -> str | None:
    """The baseline to draw beside the model: the verdict's on the first metric, else the first."""
    named = [row.baseline for row in evaluation.verdict.per_metric if row.baseline is not None]
    return (named or list(results.baselines) or [None])[0]


def headline_names(results: Results) -> list[str]:
    """Names in the table of the metrics that the verdict counts."""
    names = HEADLINE[results.task]
    if results.task == "expression" or len(results.outputs) == 1:
        return list(names)
    return [f"{output}/{name}" for output in results.outputs for name in names]


def number(value: float) -> str:
    """Three significant places after the point, more for small magnitudes, as in ``0.483`` or ``0.00312``."""
    if value != 0 and abs(value) < 0.1:
        return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.4g}"


def _block(table: pd.DataFrame, results: Results, output: str, t: int) -> Block:
    metrics = profile(results.task)
    names = [f"{output}/{one.name}" if output else one.name for one in metrics]
    rivals = [results.model, *results.baselines]
    best = {}
    for name, one in zip(names, metrics, strict=True):
        values = table.value.reindex([(system, name) for system in rivals])
        best[name] = values.max() if one.higher_is_better else values.min()
    rows = [
        Row(
            system,
            role(results, system),
            tuple(_cell(table.loc[(system, name)], best[name], system in rivals) for name in names),
        )
        for system in results.ordered
    ]
    truth = np.asarray(results.measured, dtype=np.float64)[:, t]
    floor = [one.no_skill_value(truth) for one in metrics]
    rows.append(Row("no skill", "no skill", tuple(Cell("" if np.isnan(v) else number(v)) for v in floor)))
    prevalence = float(np.nanmean(truth)) if results.task == "binary" else None
    return Block(output, metrics, tuple(rows), prevalence)


def _cell(row: pd.Series, best: float, ranked: bool) -> Cell:
    if np.isnan(row.value):
        return Cell(f"undefined ({int(row.n_undefined):,})", undefined=True)
    text = number(row.value)
    if row.n_undefined:
        text += f" ({int(row.n_undefined):,} undefined)"
    interval = "" if np.isnan(row.low) else f"{number(row.low)} to {number(row.high)}"
    return Cell(text, interval, best=bool(ranked and row.value == best))
