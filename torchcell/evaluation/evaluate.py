"""``evaluate``: model, baselines and comparators, scored by the same code on the same resamples.

Coverage: a value that is missing in the data is masked for every system. Where a system has no prediction, its value is
computed on the samples that it covers, and the others are counted in ``n_undefined``. Systems are compared only on the
samples that both cover. An undefined metric (a constant, one class, one cluster, nothing covered) is NaN, and counts
every sample as undefined.
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
    """Result of ``evaluate``.

    Attributes:
        table: One row per system and metric, the columns of ``metrics.csv``. ``n_units`` counts clusters
            with a defined value, ``n_undefined`` measured samples without one.
        primary: Name of the primary metric; with several outputs its mean over them, which is a row of the table too.
        evidence: All that the verdict depends on.
        spread: ``checks.spread`` of the model on the first results.
        results: The scored results; several where a task is scored in several ways.
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
        """Whether the model beat the best baseline, or why there is no verdict."""
        return judge(self.evidence)

    def with_checks(self, *checks: Check) -> Evaluation:
        """The same with further checks: there is a verdict only if none of them withholds it."""
        return self.with_evidence(checks=(*self.evidence.checks, *checks))

    def with_evidence(self, **further: Any) -> Evaluation:
        """The same with other fields of the evidence."""
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
        results: Predictions of every system; several results of the same systems become one table. One of them decides.
        n_boot: Resamples of the clusters, shared by all systems.
        seed: Of the resamples.
        converged: False withholds the verdict; None: unknown.
        primary: The primary metric, named before the run; none: that of the task.

    Returns:
        The table, the evidence for a verdict and the model's spread. With several outputs a metric is named
        ``<output>/<metric>``, except for expression tasks.

    Raises:
        InputError: Results of different systems, outputs of one name, an unknown primary metric.
    """
    all_results = (results,) if isinstance(results, Results) else tuple(results)
    _refuse_unlike(all_results)
    several = sum(len(part.outputs) for part in all_results) > 1
    scored = [one for part in all_results for one in scores(part, resample(part.group, n_boot, seed), several)]
    decides = [one for one in scored if one.results.decides]
    measures = _measures(decides, primary)
    table, undefined = _tabulate(scored, all_results[0].ordered)
    if len(measures["primary"][0].parts) > 1:
        table = pd.concat([table, _mean_rows(measures["primary"][0])], ignore_index=True)
    model_spread = spread(all_results[0])
    deciding = decides[0].results
    evidence = Evidence(
        comparisons=_comparisons(measures, deciding.baselines),
        metric=measures["primary"][0].name,
        chosen=primary is not None,
        n_missing=_missing(measures["primary"][0]),
        spread=model_spread,
        part=deciding.part,
        n_boot=n_boot,
        n_outputs=len(all_results[0].outputs),
        converged=converged,
        design=deciding.design,
        left_out=_left_out(measures["primary"][0]),
        ceiling=_ceiling(measures["primary"][0]),
    )
    comparators = against(measures, all_results[0], converged)
    name = measures["primary"][0].name
    return Evaluation(table, name, evidence, model_spread, all_results, comparators, undefined)


def _measures(scored: Sequence[Scored], chosen: str | None) -> dict[Role, list[Measure]]:
    """Primary, calibration and further metrics by role, each over all outputs of the deciding results."""
    task = scored[0].results.task
    if chosen is not None and not any(one.metric.name == chosen for one in scored):
        named_metric(chosen, task)  # an unknown name is an error that lists near matches
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
    """Numbers of values that some system has and the model has not, and that some system has."""
    lacking = total = 0
    for part in primary.parts:
        systems = [name for name in part.results.ordered if name not in part.results.comparators]
        definable = np.logical_or.reduce([part.covered(name) for name in systems])
        lacking += int((definable & ~part.covered(part.results.model)).sum())
        total += int(definable.sum())
    return lacking, total


def _left_out(primary: Measure) -> tuple[str, ...]:
    """Baselines with too few values to be compared."""
    results = primary.parts[0].results
    return tuple(name for name in results.baselines if primary.against(name, "primary") is None)


def _ceiling(primary: Measure) -> tuple[str, float] | None:
    """Name and value of the ceiling; None without a ceiling."""
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
            estimate = interval(one.values(system, covered))
            rows.append(_row(system, one.results.part, one.name, estimate, *_counts(one, covered, estimate)))
            if estimate.undefined and not np.isnan(estimate.value):
                undefined[system, one.name] = estimate.undefined
    place = {name: number for number, name in enumerate(order)}
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values("system", key=lambda names: names.map(place), kind="stable", ignore_index=True), undefined


def _mean_rows(primary: Measure) -> pd.DataFrame:
    """Rows of the primary metric's mean over outputs, under its name alone."""
    results, rows = primary.parts[0].results, []
    for system in results.ordered:
        estimate = interval(primary.value(system))
        covered = np.logical_or.reduce([part.covered(system) for part in primary.parts])
        measured = np.logical_or.reduce([part.measured for part in primary.parts])
        n_clusters = 0 if np.isnan(estimate.value) else primary.parts[0].weights.at(covered).n_clusters
        n_undefined = int(measured.sum()) if np.isnan(estimate.value) else int((measured & ~covered).sum())
        rows.append(_row(system, results.part, primary.name, estimate, n_clusters, n_undefined))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(
    system: str, part: str, metric: str, estimate: Interval, n_clusters: int, n_undefined: int
) -> dict[str, object]:
    values = (system, part, metric, estimate.value, estimate.low, estimate.high, n_clusters, n_undefined)
    return dict(zip(COLUMNS, values, strict=True))


def _refuse_unlike(all_results: Sequence[Results]) -> None:
    if not all_results:
        raise InputError("there are no results to evaluate")
    outputs = [(one.level, name) for one in all_results for name in one.outputs]
    if sum(one.decides for one in all_results) != 1:
        raise InputError(f"of the results of part {all_results[0].part!r} exactly one must decide; mark the others")
    if any(one.ordered != all_results[0].ordered or one.part != all_results[0].part for one in all_results):
        raise InputError(f"results of part {all_results[0].part!r} that share a table need the same part and systems")
    if len(set(outputs)) < len(outputs):
        raise InputError(f"results of part {all_results[0].part!r} that share a table need outputs of different names")


def _counts(one: Scored, covered: np.ndarray, estimate: Interval) -> tuple[int, int]:
    """Clusters with a value, and measured samples without one."""
    if np.isnan(estimate.value):
        return 0, int(one.measured.sum())
    return one.weights.at(covered).n_clusters, int((one.measured & ~covered).sum())
