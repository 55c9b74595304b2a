"""``Scored``: one metric of one output with the resamples that it is computed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from torchcell.evaluation.bootstrap import Weights, resample
from torchcell.evaluation.comparison import Measure
from torchcell.evaluation.metrics import is_flat
from torchcell.evaluation.registry import Metric, metric_set, profile
from torchcell.evaluation.results import Results


@dataclass(frozen=True, eq=False)
class Scored:
    """One metric of one output, with the resamples it is computed on.

    Attributes:
        name: As in the table.
        metric: The metric.
        results: Measured values and predictions.
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
    _cached: dict[str, np.ndarray] = field(default_factory=dict)
    _values: dict[tuple[str, bytes], np.ndarray] = field(default_factory=dict)

    def per_sample(self, system: str) -> np.ndarray:
        """Predictions of ``system``, or the metric of each sample where it is one over genes [n]; NaN: none."""
        if system not in self._cached:
            self._cached[system] = self._per_sample(system)
        return self._cached[system]

    def covered(self, system: str) -> np.ndarray:
        """Measured samples that ``system`` has a prediction (or a defined value) for, a mask [n]."""
        return self.measured & ~np.isnan(self.per_sample(system))

    def values(self, system: str, rows: np.ndarray) -> np.ndarray:
        """Value on the data and on each resample [R + 1], on the samples at ``rows`` (a mask) only."""
        key = system, np.packbits(rows).tobytes()
        if key not in self._values:
            self._values[key] = self._compute(self.per_sample(system)[rows], rows)
        return self._values[key]

    def values_or_no_skill(self, system: str, rows: np.ndarray) -> np.ndarray:
        """The same, but a constant prediction without a value gets that of no skill."""
        values, no_skill = self.values(system, rows), self.metric.no_skill
        if not np.isnan(values[0]) or self.output is None or not isinstance(no_skill, int | float):
            return values
        truth = np.asarray(self.results.measured)[rows, self.output]
        if is_flat(truth) or self.weights.at(rows).n_clusters < 2:
            return values
        return np.full_like(values, no_skill)

    def _per_sample(self, system: str) -> np.ndarray:
        predicted = np.asarray(self.results.systems[system])
        if self.output is not None:
            return predicted[:, self.output].astype(np.float64)  # a copy: a view would keep all outputs in memory
        return self.metric.function(self.results.profiles(predicted.astype(np.float64)))

    def _compute(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        weights = self.weights.at(rows)
        if weights.n_clusters < 2:
            return np.full(len(weights.count), np.nan)
        if self.output is not None:
            truth = np.asarray(self.results.measured)[rows, self.output].astype(np.float64)
            return self.metric.function(truth, values, weights)
        total, n = weights.total(values, np.ones_like(values))
        return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


def scores(results: Results, weights: Weights, several: bool) -> list[Scored]:
    """The metrics of the task, each on each output; ``several`` says whether the output is part of the name."""
    measured, shown = ~np.isnan(results.measured), profile(results.task, results.systems)
    if results.per_gene:
        any_measured, prefix = measured.any(axis=1), f"{results.level}/" if results.level else ""
        return [Scored(f"{prefix}{one.name}", one, results, None, weights, any_measured) for one in shown]
    return [
        Scored(f"{name}/{one.name}" if several else one.name, one, results, t, weights, measured[:, t])
        for t, name in enumerate(results.outputs)
        for one in shown
    ]


def measure(scored: Sequence[Scored], name: str) -> Measure:
    """A metric for comparisons; with several outputs the mean over them, named by the metric alone."""
    parts = tuple(one for one in scored if one.metric.name == name)
    return Measure(parts[0].name if len(parts) == 1 else name, parts)


def first_defined(scored: Sequence[Scored], names: Sequence[str]) -> Measure:
    """The first of several metrics that has a value for any system; the first of all where none has."""
    measures = [measure(scored, name) for name in names]
    return next((one for one in measures if one.defined()), measures[0])


def primary_measure(results: Results, n_boot: int, seed: int) -> Measure:
    """The primary metric of the results' task on their own."""
    scored = scores(results, resample(results.group, n_boot, seed), len(results.outputs) > 1)
    return first_defined(scored, metric_set(results.task).primary)
