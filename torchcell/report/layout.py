"""The table of scores as blocks of cells, shown alike on the screen and in the page."""

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
    """One value: ``text``, its ``interval`` and a ``note`` (empty where it has none), and what it is in its column."""

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
        output: Its name; empty where there is only one.
        n_samples: Samples measured.
        n_units: Grouping units that they belong to.
        task: As in ``Results``.
        metrics: The columns.
        rows: Model, comparators, baselines, ceiling, then what no skill scores.
        prevalence: Share of positives, for a binary task.
        primary: The metric among them that decides the verdict; empty: none here does.
        footnotes: Systems without any value, and metrics without one for any system, in a line each.
    """

    output: str
    n_samples: int
    n_units: int
    task: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    prevalence: float | None = None
    primary: str = ""
    footnotes: tuple[str, ...] = ()

    @property
    def heads(self) -> tuple[str, ...]:
        """Column titles; the arrow says which way is better, and the one that decides is marked."""
        return tuple(
            f"{one.name} {'↑' if one.higher_is_better else '↓'}{' primary' if one.name == self.primary else ''}"
            for one in self.metrics
        )


def blocks(evaluation: Evaluation) -> list[Block]:
    """One block per output of all that was scored; one for all genes of an expression task.

    Where the verdict rests on the mean over several outputs, that stands first.
    """
    table = evaluation.table.set_index(["system", "metric"])
    found = [
        _block(table, results, name, t, evaluation.primary)
        for results in evaluation.results
        for t, name in _tables(evaluation, results)
    ]
    return [*_mean_block(evaluation, table), *found]


def _mean_block(evaluation: Evaluation, table: pd.DataFrame) -> list[Block]:
    """The primary metric's mean over outputs, where there are several."""
    (results,) = (one for one in evaluation.results if one.decides)
    if results.per_gene or len(results.outputs) < 2:
        return []
    measure = metric(evaluation.primary, results.task)
    cells = _column(table, results, evaluation.primary, measure)
    kept = [(name, cell) for name, cell in zip(results.ordered, cells, strict=True) if not cell.undefined]
    rows = tuple(Row(name, role(results, name), (cell,)) for name, cell in kept)
    title = f"mean over {len(results.outputs)} outputs"
    sizes = len(results), results.n_clusters
    return [Block(title, *sizes, results.task, (measure,), rows, primary=evaluation.primary)]


def _tables(evaluation: Evaluation, results: Results) -> list[tuple[int, str]]:
    """Column and name of the outputs that have a table of their own; the only one of all has no name."""
    if results.per_gene or sum(len(one.outputs) for one in evaluation.results) == 1:
        return [(0, results.level)]
    return list(enumerate(results.outputs))


def role(results: Results, system: str) -> str:
    """What a system is in the comparison."""
    if system == results.model:
        return "model"
    if system in results.comparators:
        return "comparator"
    return "ceiling" if system == results.ceiling else "baseline"


def best_baseline(evaluation: Evaluation, results: Results) -> str | None:
    """The baseline to draw beside the model: the verdict's, else the first."""
    return evaluation.verdict.primary.baseline or next(iter(results.baselines), None)


def compared_names(evaluation: Evaluation) -> list[tuple[str, Results]]:
    """Names in the table of the metrics that are compared, those of the deciding results first, with them."""
    return [
        (f"{output}/{name}" if output else name, results)
        for results in sorted(evaluation.results, key=lambda one: not one.decides)
        for _, output in _tables(evaluation, results)
        for name in metric_set(results.task).beside
    ]


def digits(values: Iterable[float]) -> int:
    """Places after the point that give the middle one of ``values`` three significant digits."""
    sizes = sorted(abs(value) for value in values if np.isfinite(value) and value != 0)
    if not sizes:
        return 3
    return int(np.clip(2 - np.floor(np.log10(sizes[len(sizes) // 2])), 0, 9))


def number(value: float, places: int | None = None) -> str:
    """``value`` with ``places`` after the point, by default three significant digits; never ``-0.000``."""
    text = f"{value:,.{digits([value]) if places is None else places}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def span(low: float, high: float, places: int | None = None) -> str:
    """An interval, empty where it is undefined."""
    places = digits([low, high]) if places is None else places
    return "" if np.isnan(low) else f"[{number(low, places)}, {number(high, places)}]"


def _block(table: pd.DataFrame, results: Results, output: str, t: int, primary: str) -> Block:
    every = profile(results.task, results.systems)
    named = {f"{output}/{one.name}" if output else one.name: one for one in every}
    undefined = [name for name in named if table.value.xs(name, level="metric").isna().all()]
    names = [name for name in named if name not in undefined] or list(named)
    metrics = tuple(named[name] for name in names)
    columns = [_column(table, results, *pair) for pair in zip(names, metrics, strict=True)]
    rows = [
        Row(system, role(results, system), tuple(column[place] for column in columns))
        for place, system in enumerate(results.ordered)
    ]
    empty = [row.system for row in rows if row.role != "model" and all(cell.undefined for cell in row.cells)]
    rows = [row for row in rows if row.system not in empty]
    truth = np.asarray(results.measured, dtype=np.float64)[:, t]
    floor = [one.no_skill_value(truth, results.rank_within) for one in metrics]
    places = [digits(table.value.xs(name, level="metric")) for name in names]
    cells = ("" if np.isnan(v) else number(v, d) for v, d in zip(floor, places, strict=True))
    rows.append(Row("no skill", "no skill", tuple(map(Cell, cells))))
    prevalence = float(np.nanmean(truth)) if metric_set(results.task).labels else None
    held = ~np.isnan(results.measured).all(axis=1) if results.per_gene else ~np.isnan(truth)
    return Block(
        output,
        int(held.sum()),
        clusters_in(results.group[held]),
        results.task,
        metrics,
        tuple(rows),
        prevalence,
        primary.rpartition("/")[2] if primary in names else "",
        _footnotes(empty, [named[name].name for name in undefined if name not in names]),
    )


def _footnotes(systems: list[str], metrics: list[str]) -> tuple[str, ...]:
    """What has no value at all, in a line each."""
    lines = [
        ("without any value here", systems),
        ("undefined for every system here", metrics),
    ]
    return tuple(f"{what}: {', '.join(names)}" for what, names in lines if names)


def _column(table: pd.DataFrame, results: Results, name: str, measure: Metric) -> list[Cell]:
    """The cells of one metric; best is among model and baselines that cover every sample."""
    kept = table.xs(name, level="metric").loc[list(results.ordered), ["value", "low", "high", "n_undefined"]]
    places, numbers = digits(kept.value), kept.to_numpy(dtype=float)
    ranked = [
        value
        for system, (value, _, _, undefined) in zip(kept.index, numbers, strict=True)
        if system != results.ceiling and not undefined
    ]
    best = (max if measure.higher_is_better else min)(ranked, default=np.nan)
    cells = []
    for system, (value, low, high, undefined) in zip(kept.index, numbers, strict=True):
        if np.isnan(value):
            cells.append(Cell(f"undefined ({undefined:,.0f})", undefined=True))
            continue
        is_best = bool(system != results.ceiling and not undefined and value == best)
        note = f"{undefined:,.0f} undefined" if undefined else ""
        cells.append(Cell(number(value, places), span(low, high, places), note, is_best))
    return cells
