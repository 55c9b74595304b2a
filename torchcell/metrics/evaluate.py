"""``evaluate``: the model and everything it must beat, scored by the same code on the same resamples.

Coverage. A value missing in the data is masked for every system. Where a system itself has no prediction, its
value is computed on the samples it covers and the rest are counted in ``n_undefined``; it is never compared
with another system's value on other samples: the verdict recomputes both on the samples they share.
Undefined metrics (a constant, one class, one unit, nothing covered) are NaN, with every sample counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from torchcell.data.errors import InputError
from torchcell.metrics.bootstrap import Interval, interval, resample
from torchcell.metrics.guards import spread
from torchcell.metrics.registry import Metric, profile
from torchcell.metrics.results import Results
from torchcell.metrics.rivals import Against, against
from torchcell.metrics.verdict import Verdict, judge
from torchcell.metrics.weights import Weights

COLUMNS: tuple[str, ...] = ("system", "part", "metric", "value", "low", "high", "n_units", "n_undefined")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What ``evaluate`` found.

    Attributes:
        table: One row per system and metric, the columns of ``metrics.csv``. ``n_units`` counts grouping
            units with a defined value, ``n_undefined`` measured samples without one.
        verdict: Whether the model beat the best baseline.
        spread: The model's ``guards.spread`` on the first results.
        results: What was scored; several where a task is scored in several ways.
        rivals: The model against each rival, in their order.
        undefined_resamples: Per (system, metric), how many resamples were undefined, where any were.
    """

    table: pd.DataFrame
    verdict: Verdict
    spread: dict[str, object]
    results: tuple[Results, ...]
    rivals: tuple[Against, ...] = ()
    undefined_resamples: dict[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scored:
    """One metric of one output, with the resamples it is computed on.

    Attributes:
        name: As in the table.
        metric: What is computed.
        results: On what.
        output: Position of the output; None for a metric over all genes of each sample.
        weights: The resamples.
        measured: Samples with a measured value, a mask [n].
    """

    name: str
    metric: Metric
    results: Results
    output: int | None
    weights: Weights
    measured: np.ndarray
    _held: dict[str, np.ndarray] = field(default_factory=dict)
    _values: dict[tuple[str, bytes], np.ndarray] = field(default_factory=dict)

    def per_sample(self, system: str) -> np.ndarray:
        """Predictions of ``system``, or its values where the metric is one per sample [n]; NaN: none."""
        if system not in self._held:
            self._held[system] = self._per_sample(system)
        return self._held[system]

    def covered(self, system: str) -> np.ndarray:
        """Measured samples that ``system`` has a prediction (or a defined value) for, a mask [n]."""
        return self.measured & ~np.isnan(self.per_sample(system))

    def values(self, system: str, rows: np.ndarray) -> np.ndarray:
        """Value on the data and on each resample [R + 1], on the samples at ``rows`` (a mask) only."""
        key = system, np.packbits(rows).tobytes()
        if key not in self._values:
            self._values[key] = self._compute(self.per_sample(system)[rows], rows)
        return self._values[key]

    def _per_sample(self, system: str) -> np.ndarray:
        predicted = np.asarray(self.results.systems[system])
        if self.output is not None:
            return predicted[:, self.output].astype(np.float64)  # of one output: a view would keep all of them
        return self.metric.function(self.results.profiles(predicted.astype(np.float64)))

    def _compute(self, held: np.ndarray, rows: np.ndarray) -> np.ndarray:
        weights = self.weights.at(rows)
        if weights.n_units < 2:
            return np.full(len(weights.count), np.nan)
        if self.output is not None:
            truth = np.asarray(self.results.measured)[rows, self.output].astype(np.float64)
            return self.metric.function(truth, held, weights)
        total, n = weights.total(held, np.ones_like(held))
        return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


def evaluate(
    results: Results | Sequence[Results], n_boot: int = 1000, seed: int = 0, converged: bool | None = None
) -> Evaluation:
    """Score every system and judge the model.

    Args:
        results: What every system predicted; several of the same systems become one table and one verdict.
        n_boot: Resamples of the grouping units, shared by all systems.
        seed: Of the resamples.
        converged: False withholds the verdict; None when nothing was trained here.

    Returns:
        The table, the verdict and the model's spread. With several outputs a metric is named ``<output>/<metric>``,
        but for expression tasks.

    Raises:
        InputError: Results of different systems, or outputs of one name.
    """
    every = (results,) if isinstance(results, Results) else tuple(results)
    _refuse_unlike(every)
    several = sum(len(one.outputs) for one in every) > 1
    scored = [one for each in every for one in scores(each, resample(each.group, n_boot, seed), several)]
    rows: list[dict[str, object]] = []
    undefined: dict[tuple[str, str], int] = {}
    for one in scored:
        for system in one.results.ordered:
            covered = one.covered(system)
            found = interval(one.values(system, covered))
            n_units, n_undefined = _counts(one, covered, found)
            rows.append(
                {
                    "system": system,
                    "part": one.results.part,
                    "metric": one.name,
                    "value": found.value,
                    "low": found.low,
                    "high": found.high,
                    "n_units": n_units,
                    "n_undefined": n_undefined,
                }
            )
            if found.undefined and not np.isnan(found.value):
                undefined[system, one.name] = found.undefined
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    order = {name: place for place, name in enumerate(every[0].ordered)}
    table = table.sort_values("system", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    guard = spread(every[0])
    verdict, rivals = judge(scored, every[0], guard, converged), against(scored, every[0], converged)
    return Evaluation(table, verdict, guard, every, rivals, undefined)


def scores(results: Results, weights: Weights, several: bool) -> list[Scored]:
    """The metrics of the task, each on each output; ``several`` says whether the output is part of the name."""
    measured, shown = ~np.isnan(results.measured), profile(results.task, results.systems)
    if results.per_gene:
        held, head = measured.any(axis=1), f"{results.level}/" if results.level else ""
        return [Scored(f"{head}{one.name}", one, results, None, weights, held) for one in shown]
    return [
        Scored(f"{name}/{one.name}" if several else one.name, one, results, t, weights, measured[:, t])
        for t, name in enumerate(results.outputs)
        for one in shown
    ]


def _refuse_unlike(every: Sequence[Results]) -> None:
    if not every:
        raise InputError("there are no results to evaluate")
    outputs = [(one.level, name) for one in every for name in one.outputs]
    if any(one.ordered != every[0].ordered or one.part != every[0].part for one in every):
        raise InputError(f"results of part {every[0].part!r} that share a table need the same part and systems")
    if len(set(outputs)) < len(outputs):
        raise InputError(f"results of part {every[0].part!r} that share a table need outputs of different names")


def _counts(one: Scored, covered: np.ndarray, found: Interval) -> tuple[int, int]:
    """Units with a value, and measured samples without one."""
    if np.isnan(found.value):
        return 0, int(one.measured.sum())
    return one.weights.at(covered).n_units, int((one.measured & ~covered).sum())
