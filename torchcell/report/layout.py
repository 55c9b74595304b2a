"""The table of scores as blocks of cells, the same for terminal and page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from torchcell.evaluation.evaluate import Evaluation
from torchcell.evaluation.registry import Metric, metric, metric_set, profile
from torchcell.evaluation.results import Results, clusters_in


@dataclass(frozen=True)
class Cell:
    """One value: ``text``, ``interval`` and ``note`` (empty without); whether it is the best of its column."""

    text: str
    interval: str = ""
    note: str = ""
    best: bool = False
    undefined: bool = False


@dataclass(frozen=True)
class Row:
    """One system; ``role`` is ``model``, ``comparator``, ``baseline``, ``ceiling`` or ``no skill``."""

    system: str
    role: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Block:
    """The table of one output.

    Attributes:
        output: Name of the output; empty where there is only one.
        n_samples: Number of measured samples.
        n_clusters: Number of their clusters.
        task: As in ``Results``.
        metrics: The columns.
        rows: Model, comparators, baselines, ceiling, then the no-skill values.
        prevalence: Share of positives, for a binary task.
        primary: Name of the primary metric; empty: it is not in this block.
        footnotes: A line for systems without any value, and one for metrics without a value for any system.
    """

    output: str
    n_samples: int
    n_clusters: int
    task: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    prevalence: float | None = None
    primary: str = ""
    footnotes: tuple[str, ...] = ()

    @property
    def heads(self) -> tuple[str, ...]:
        """Column titles; the arrow shows the better direction, and the primary metric is marked."""
        return tuple(
            f"{one.name} {'↑' if one.higher_is_better else '↓'}{' primary' if one.name == self.primary else ''}"
            for one in self.metrics
        )


def blocks(evaluation: Evaluation) -> list[Block]:
    """One block per output; a single block for all genes of an expression task.

    Where the verdict is on the mean over several outputs, the block of that mean comes first.
    """
    table = evaluation.table.set_index(["system", "metric"])
    per_output = [
        _block(table, results, name, t, evaluation.primary)
        for results in evaluation.results
        for t, name in _tables(evaluation, results)
    ]
    return [*_mean_block(evaluation, table), *per_output]


def _mean_block(evaluation: Evaluation, table: pd.DataFrame) -> list[Block]:
    """The primary metric's mean over outputs, where there are several."""
    (results,) = (one for one in evaluation.results if one.decides)
    if results.per_gene or len(results.outputs) < 2:
        return []
    measure = metric(evaluation.primary, results.task)
    cells = _column(table, results, evaluation.primary, measure)
    defined = [(name, cell) for name, cell in zip(results.ordered, cells, strict=True) if not cell.undefined]
    rows = tuple(Row(name, role(results, name), (cell,)) for name, cell in defined)
    title = f"mean over {len(results.outputs)} outputs"
    sizes = len(results), results.n_clusters
    return [Block(title, *sizes, results.task, (measure,), rows, primary=evaluation.primary)]


def _tables(evaluation: Evaluation, results: Results) -> list[tuple[int, str]]:
    """Position and name of each output with a table; a single output has no name."""
    if results.per_gene or sum(len(one.outputs) for one in evaluation.results) == 1:
        return [(0, results.level)]
    return list(enumerate(results.outputs))


def role(results: Results, system: str) -> str:
    """Role of a system in the comparison."""
    if system == results.model:
        return "model"
    if system in results.comparators:
        return "comparator"
    return "ceiling" if system == results.ceiling else "baseline"


def best_baseline(evaluation: Evaluation, results: Results) -> str | None:
    """The baseline to draw beside the model: that of the verdict, else the first."""
    return evaluation.verdict.primary.baseline or next(iter(results.baselines), None)


def compared_names(evaluation: Evaluation) -> list[tuple[str, Results]]:
    """Names of the compared metrics in the table with their results; those of the deciding results first."""
    return [
        (f"{output}/{name}" if output else name, results)
        for results in sorted(evaluation.results, key=lambda one: not one.decides)
        for _, output in _tables(evaluation, results)
        for name in metric_set(results.task).beside
    ]


def digits(values: Iterable[float]) -> int:
    """Decimals that show three significant digits of the median of ``values``."""
    sizes = sorted(abs(value) for value in values if np.isfinite(value) and value != 0)
    if not sizes:
        return 3
    return int(np.clip(2 - np.floor(np.log10(sizes[len(sizes) // 2])), 0, 9))


def number(value: float, places: int | None = None) -> str:
    """``value`` with ``places`` decimals, by default three significant digits; never ``-0.000``."""
    text = f"{value:,.{digits([value]) if places is None else places}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def span(low: float, high: float, places: int | None = None) -> str:
    """An interval, empty where it is undefined."""
    places = digits([low, high]) if places is None else places
    return "" if np.isnan(low) else f"[{number(low, places)}, {number(high, places)}]"


def _block(table: pd.DataFrame, results: Results, output: str, t: int, primary: str) -> Block:
    metrics_of_task = profile(results.task, results.systems)
    named = {f"{output}/{one.name}" if output else one.name: one for one in metrics_of_task}
    undefined = [name for name in named if table.value.xs(name, level="metric").isna().all()]
    names = [name for name in named if name not in undefined] or list(named)
    metrics = tuple(named[name] for name in names)
    columns = [_column(table, results, *pair) for pair in zip(names, metrics, strict=True)]
    rows = [
        Row(system, role(results, system), tuple(column[i] for column in columns))
        for i, system in enumerate(results.ordered)
    ]
    empty = [row.system for row in rows if row.role != "model" and all(cell.undefined for cell in row.cells)]
    rows = [row for row in rows if row.system not in empty]
    truth = np.asarray(results.measured, dtype=np.float64)[:, t]
    no_skill = [one.no_skill_value(truth, results.rank_within) for one in metrics]
    places = [digits(table.value.xs(name, level="metric")) for name in names]
    cells = ("" if np.isnan(v) else number(v, d) for v, d in zip(no_skill, places, strict=True))
    rows.append(Row("no skill", "no skill", tuple(map(Cell, cells))))
    prevalence = float(np.nanmean(truth)) if metric_set(results.task).labels else None
    measured = ~np.isnan(results.measured).all(axis=1) if results.per_gene else ~np.isnan(truth)
    return Block(
        output,
        int(measured.sum()),
        clusters_in(results.group[measured]),
        results.task,
        metrics,
        tuple(rows),
        prevalence,
        primary.rpartition("/")[2] if primary in names else "",
        _footnotes(empty, [named[name].name for name in undefined if name not in names]),
    )


def _footnotes(systems: list[str], metrics: list[str]) -> tuple[str, ...]:
    """A line for systems without any value, and one for metrics without any."""
    lines = [
        ("without any value here", systems),
        ("undefined for every system here", metrics),
    ]
    return tuple(f"{text}: {', '.join(names)}" for text, names in lines if names)


def _column(table: pd.DataFrame, results: Results, name: str, measure: Metric) -> list[Cell]:
    """The cells of one metric; the best is chosen among systems that cover every sample, without the ceiling."""
    values = table.xs(name, level="metric").loc[list(results.ordered), ["value", "low", "high", "n_undefined"]]
    places, numbers = digits(values.value), values.to_numpy(dtype=float)
    ranked = [
        value
        for system, (value, _, _, undefined) in zip(values.index, numbers, strict=True)
        if system != results.ceiling and not undefined
    ]
    best = (max if measure.higher_is_better else min)(ranked, default=np.nan)
    cells = []
    for system, (value, low, high, undefined) in zip(values.index, numbers, strict=True):
        if np.isnan(value):
            cells.append(Cell(f"undefined ({undefined:,.0f})", undefined=True))
            continue
        is_best = bool(system != results.ceiling and not undefined and value == best)
        note = f"{undefined:,.0f} undefined" if undefined else ""
        cells.append(Cell(number(value, places), span(low, high, places), note, is_best))
    return cells
