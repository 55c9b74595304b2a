"""``evaluate``: the model and everything it must beat, scored by the same code on the same resamples.

Coverage. A value missing in the data is masked for every system. Where a system itself has no prediction, its
value is computed on the samples it covers and the rest are counted in ``n_undefined``; it is never compared
with another system's value on other samples: the verdict recomputes both on the samples they share.
Undefined metrics (a constant, one class, one cluster, nothing covered) are NaN, with every sample counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from torchcell.evaluation.bootstrap import Interval, interval, resample
from torchcell.evaluation.checks import Check, spread
from torchcell.evaluation.comparison import Comparison, Measure, Role
from torchcell.evaluation.registry import metric as named_metric
from torchcell.evaluation.registry import metric_set
from torchcell.evaluation.results import Results
from torchcell.evaluation.scored import Scored, first_defined, measure, scores
from torchcell.evaluation.verdict import Evidence, PairwiseComparison, Verdict, against, judge
from torchcell.io.errors import InputError

ROLES: tuple[Role, ...] = ("primary", "calibration", "beside")
COLUMNS: tuple[str, ...] = ("system", "part", "metric", "value", "low", "high", "n_units", "n_undefined")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What ``evaluate`` found.

    Attributes:
        table: One row per system and metric, the columns of ``metrics.csv``. ``n_units`` counts clusters
            with a defined value, ``n_undefined`` measured samples without one.
        primary: Name of the metric that decides; with several outputs its mean over them, a row of the table too.
        evidence: What the verdict rests on.
        spread: The model's ``guards.spread`` on the first results.
        results: What was scored; several where a task is scored in several ways.
        comparators: The model against each comparator, in their order.
        undefined_resamples: Per (system, metric), how many resamples were undefined, where any were.
    """

    table: pd.DataFrame
    primary: str
    evidence: Evidence
    spread: dict[str, object]
    results: tuple[Results, ...]
    comparators: tuple[PairwiseComparison, ...] = ()
    undefined_resamples: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Whether the model beat the best baseline, or why that can't be said."""
        return judge(self.evidence)

    def with_checks(self, *checks: Check) -> Evaluation:
        """The same, with what else was found: a verdict stands only where every check holds."""
        return self.with_evidence(checks=(*self.evidence.checks, *checks))

    def with_evidence(self, **further: Any) -> Evaluation:
        """The same, with further fields of the evidence."""
        return replace(self, evidence=replace(self.evidence, **further))


def evaluate(
    results: Results | Sequence[Results],
    n_boot: int = 1000,
    seed: int = 0,
    converged: bool | None = None,
    primary: str | None = None,
) -> Evaluation:
    """Score every system and compare the model with each.

    Args:
        results: What every system predicted; several of the same systems become one table. One of them decides.
        n_boot: Resamples of the clusters, shared by all systems.
        seed: Of the resamples.
        converged: False withholds the verdict; None when nothing was trained here.
        primary: The metric that decides, named before the run; none: the task's.

    Returns:
        The table, the evidence for a verdict and the model's spread. With several outputs a metric is named
        ``<output>/<metric>``, but for expression tasks.

    Raises:
        InputError: Results of different systems, outputs of one name, an unknown primary metric.
    """
    every = (results,) if isinstance(results, Results) else tuple(results)
    _refuse_unlike(every)
    several = sum(len(one.outputs) for one in every) > 1
    scored = [one for each in every for one in scores(each, resample(each.group, n_boot, seed), several)]
    decides = [one for one in scored if one.results.decides]
    measures = _measures(decides, primary)
    table, undefined = _tabulate(scored, every[0].ordered)
    if len(measures["primary"][0].parts) > 1:
        table = pd.concat([table, _mean_rows(measures["primary"][0])], ignore_index=True)
    guard = spread(every[0])
    deciding = decides[0].results
    evidence = Evidence(
        comparisons=_comparisons(measures, deciding.baselines),
        metric=measures["primary"][0].name,
        chosen=primary is not None,
        n_missing=_missing(measures["primary"][0]),
        spread=guard,
        part=deciding.part,
        n_boot=n_boot,
        n_outputs=len(every[0].outputs),
        converged=converged,
        design=deciding.design,
        left_out=_left_out(measures["primary"][0]),
        ceiling=_ceiling(measures["primary"][0]),
    )
    comparators = against(measures, every[0], converged)
    return Evaluation(table, measures["primary"][0].name, evidence, guard, every, comparators, undefined)


def _measures(scored: Sequence[Scored], chosen: str | None) -> dict[Role, list[Measure]]:
    """The primary metric, its calibration and those beside, each over all outputs of the deciding results."""
    task = scored[0].results.task
    if chosen is not None and not any(one.metric.name == chosen for one in scored):
        named_metric(chosen, task)  # an unknown one names those that are near
        raise InputError(f"evaluation.primary={chosen}: these data are not scored by it")
    used = metric_set(task)
    first = first_defined(scored, used.primary if chosen is None else (chosen,))
    calibration = [measure(scored, name) for name in used.calibration]
    beside = [measure(scored, name) for name in used.beside if name not in used.calibration]
    return {
        "primary": [first],
        "calibration": calibration,
        "beside": [one for one in beside if one.name != first.name],
    }


def _comparisons(measures: dict[Role, list[Measure]], baselines: Sequence[str]) -> tuple[Comparison, ...]:
    return tuple(row for role in ROLES for one in measures[role] for row in one.compared(baselines, role))


def _missing(primary: Measure) -> tuple[int, int]:
    """Measured values that the model has no prediction for though some system has, and all that can be had."""
    lacking = total = 0
    for part in primary.parts:
        systems = [name for name in part.results.ordered if name not in part.results.comparators]
        known = np.logical_or.reduce([part.covered(name) for name in systems])
        lacking += int((known & ~part.covered(part.results.model)).sum())
        total += int(known.sum())
    return lacking, total


def _left_out(primary: Measure) -> tuple[str, ...]:
    """Baselines that have a prediction and too few values to be compared."""
    results = primary.parts[0].results
    return tuple(name for name in results.baselines if primary.against(name, "primary") is None)


def _ceiling(primary: Measure) -> tuple[str, float] | None:
    """What the ceiling is called, and its value; none where there is none."""
    results = primary.parts[0].results
    if results.ceiling is None:
        return None
    value = float(primary.value(results.ceiling)[0])
    return None if np.isnan(value) else (results.design.ceiling, value)


def _tabulate(scored: Sequence[Scored], order: Sequence[str]) -> tuple[pd.DataFrame, dict[tuple[str, str], int]]:
    """The table of all systems and metrics, and how many resamples were undefined where any were."""
    rows: list[dict[str, object]] = []
    undefined: dict[tuple[str, str], int] = {}
    for one in scored:
        for system in one.results.ordered:
            covered = one.covered(system)
            found = interval(one.values(system, covered))
            rows.append(_row(system, one.results.part, one.name, found, *_counts(one, covered, found)))
            if found.undefined and not np.isnan(found.value):
                undefined[system, one.name] = found.undefined
    place = {name: number for number, name in enumerate(order)}
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values("system", key=lambda names: names.map(place), kind="stable", ignore_index=True), undefined


def _mean_rows(primary: Measure) -> pd.DataFrame:
    """Rows of the primary metric's mean over outputs, under its name alone."""
    results, rows = primary.parts[0].results, []
    for system in results.ordered:
        found = interval(primary.value(system))
        covered = np.logical_or.reduce([part.covered(system) for part in primary.parts])
        measured = np.logical_or.reduce([part.measured for part in primary.parts])
        n_units = 0 if np.isnan(found.value) else primary.parts[0].weights.at(covered).n_units
        n_undefined = int(measured.sum()) if np.isnan(found.value) else int((measured & ~covered).sum())
        rows.append(_row(system, results.part, primary.name, found, n_units, n_undefined))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(system: str, part: str, metric: str, found: Interval, n_units: int, n_undefined: int) -> dict[str, object]:
    values = (system, part, metric, found.value, found.low, found.high, n_units, n_undefined)
    return dict(zip(COLUMNS, values, strict=True))


def _refuse_unlike(every: Sequence[Results]) -> None:
    if not every:
        raise InputError("there are no results to evaluate")
    outputs = [(one.level, name) for one in every for name in one.outputs]
    if sum(one.decides for one in every) != 1:
        raise InputError(f"of the results of part {every[0].part!r} exactly one must decide; mark the others")
    if any(one.ordered != every[0].ordered or one.part != every[0].part for one in every):
        raise InputError(f"results of part {every[0].part!r} that share a table need the same part and systems")
    if len(set(outputs)) < len(outputs):
        raise InputError(f"results of part {every[0].part!r} that share a table need outputs of different names")


def _counts(one: Scored, covered: np.ndarray, found: Interval) -> tuple[int, int]:
    """Units with a value, and measured samples without one."""
    if np.isnan(found.value):
        return 0, int(one.measured.sum())
    return one.weights.at(covered).n_units, int((one.measured & ~covered).sum())
