"""Checks that can withhold a verdict: collapse, unused inputs, no measurable signal; and warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd

from torchcell.evaluation.bootstrap import FEWEST_CLUSTERS, Interval, interval, resample
from torchcell.evaluation.comparison import Comparison, Measure
from torchcell.evaluation.registry import higher_is_better
from torchcell.evaluation.results import Results
from torchcell.evaluation.scored import primary_measure

IGNORED_ABOVE = 0.99
"""Predicted changes that correlate above this with those from a shuffled input do not depend on it."""

RETRIEVAL = "replicate_retrieval"
UNCHECKED = "input_use"
"""Name of the check for data that do not say how inputs are shuffled: the verdict must mention it."""
MEASURED = "measured_values"
"""Name of the check for predictions that are a copy of what was measured."""
EMPTY: Mapping[str, Any] = MappingProxyType({})
Status = Literal["ok", "failed", "not shown", "not applicable"]


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: Key in ``metrics.json``, e.g. ``perturbation_shuffled``.
        status: ``failed`` and ``not shown`` withhold the verdict where there is a ``reason``.
        finding: A sentence on the result.
        reason: Why there is no verdict if the check fails, e.g. ``input ignored``; empty: it is only reported.
        facts: Numbers for ``metrics.json``.
        row: The comparison that ``collect`` pools over folds.
    """

    name: str
    status: Status
    finding: str
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    row: Comparison | None = None

    def summary(self) -> dict[str, Any]:
        """The entry in ``metrics.json``."""
        return {"status": self.status, "finding": self.finding, **self.facts}


@dataclass(frozen=True, eq=False)
class Halves:
    """Two independent measurements of each of n samples over G values.

    Attributes:
        first, second: The measurements [n, G]; NaN rows where a sample has no second one.
        context: Context of each sample, e.g. its cell line [n]; only samples of one context are compared.
        technical: Pairs that are not compared, since the first of sample i and the second of sample j share something
            technical such as a plate, bool [n, n]; none: no pair.
    """

    first: np.ndarray
    second: np.ndarray
    context: np.ndarray
    technical: np.ndarray | None = None


def collapse(what: str) -> Check:
    """A failed check for something that has collapsed, other than the predictions."""
    return Check("collapse", "failed", what, f"collapsed: {what}")


def input_use(
    results: Results, shuffled: Sequence[np.ndarray], key: str, decides: bool, n_boot: int = 1000, seed: int = 0
) -> Check:
    """Does the model use an input? Measures how far the score drops when the input is exchanged among samples.

    Args:
        results: With the model's predictions; scored by the primary metric of their task.
        shuffled: Predictions [n, T] of the model for each of several shuffles of the input; empty: all share it.
        key: Name of the check: input and change, e.g. ``perturbation_shuffled``.
        decides: Whether the split holds this input out, so that a model that ignores it gets no verdict.
        n_boot: Resamples of the clusters.
        seed: Of the resamples.

    Returns:
        ``failed`` where predicted changes correlate above .99 with the unshuffled ones, or the score does not drop (the
        95 % interval of the drop ends at or below 0); ``not shown`` where that interval contains 0.
    """
    if not shuffled:
        return Check(key, "not applicable", "all samples have the same input")
    measure, drop, n_samples, clusters = _drop(results, shuffled, n_boot, seed)
    correlation = float(np.mean([_correlation_of_changes(results, prediction) for prediction in shuffled]))
    row = Comparison.of(drop, "input", measure.name, key, n_samples, clusters, measure.higher_is_better)
    facts = {"value": _plain(float(measure.value(results.model)[0])), "shuffles": len(shuffled)}
    return input_check(key, correlation, drop, row, decides, facts)


def input_check(
    key: str, correlation: float, drop: Interval, row: Comparison, decides: bool, facts: Mapping[str, Any] = EMPTY
) -> Check:
    """The check of an input from correlation and drop, of one run or pooled over several.

    Args:
        key: Name of the check: input and change, e.g. ``perturbation_shuffled``.
        correlation: Of predicted changes with those from the shuffled input; NaN where they do not vary.
        drop: The metric minus the metric with the shuffled input.
        row: The same for ``comparisons.csv``.
        decides: Whether the split holds this input out.
        facts: Further numbers.
    """
    loss = drop if higher_is_better(row.metric) else _negated(drop)
    # An undefined interval gives "not shown".
    status: Status = "ok" if loss.low > 0 else "not shown"
    if np.isnan(correlation) or correlation > IGNORED_ABOVE or loss.high <= 0:
        status = "failed"
    name, _, change = key.rpartition("_")
    name = name.replace("_", " ")
    reason = {"failed": f"input ignored ({name})", "not shown": f"input use not shown ({name})"}.get(status, "")
    numbers = {"drop": loss.value, "low": loss.low, "high": loss.high, "correlation": correlation}
    finding = (
        f"{change}, {row.metric} falls by {loss.value:.3g} [{loss.low:.3g}, {loss.high:.3g}]; predicted changes "
        f"correlate by {correlation:.3f} with the true input's"
    )
    facts = {
        "metric": row.metric,
        **facts,
        **{key: _plain(value) for key, value in numbers.items()},
        "decides": decides,
    }
    return Check(key, status, finding, reason if decides else "", facts, row if decides else None)


def measurable_signal(halves: Halves | None, group: np.ndarray, n_boot: int = 1000, seed: int = 0) -> Check:
    """Is there signal: is one half of the replicates of a condition nearer to its other half than to other conditions?

    Args:
        halves: Two independent measurements of each sample. None: there are no replicates.
        group: Clusters of the samples [n] or [n, K].
        n_boot: Resamples of the clusters.
        seed: Of the resamples.

    Returns:
        ``failed`` where the 95 % interval of the retrieval (share of other samples that are farther) contains .5.
    """
    if halves is None:
        return Check(RETRIEVAL, "not applicable", "there are no replicates")
    share = retrieval(halves)
    defined = ~np.isnan(share)
    weights = resample(group, n_boot, seed).at(defined)
    if weights.n_clusters < 2:
        return Check(RETRIEVAL, "not applicable", "too few samples have replicates to be compared with others")
    total, n = weights.total(share[defined] - 0.5, np.ones(int(defined.sum())))
    above = interval(np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)).for_clusters(weights.n_clusters)
    row = Comparison.of(above, "signal", "retrieval", "chance", int(defined.sum()), weights.n_clusters)
    return signal_check(above, row)


def signal_check(above: Interval, row: Comparison) -> Check:
    """The check of signal from the retrieval minus .5, ``above``, of one run or pooled over several."""
    low, high = above.low + 0.5, above.high + 0.5
    finding = (
        f"a replicate is nearer to its own condition than to {above.value + 0.5:.3f} [{low:.3f}, {high:.3f}] of others"
    )
    status: Status = "ok" if above.low > 0 else "failed"
    if status == "failed" and row.n_clusters < FEWEST_CLUSTERS:
        status = "not shown"  # too few conditions to distinguish noise from a weak signal
    facts = {"retrieval": _plain(above.value + 0.5), "low": _plain(low), "high": _plain(high)}
    return Check(RETRIEVAL, status, finding, "no measurable signal" if status == "failed" else "", facts, row)


def retrieval(halves: Halves) -> np.ndarray:
    """For each sample the share of other samples in its context whose second half is farther from its first half than
    its own second half is [n].

    The distance is 1 - correlation over genes, or the absolute difference of a single phenotype; ties count half. NaN
    without a second half, or without another sample to compare with.
    """
    first, second, context = halves.first, halves.second, halves.context
    share = np.full(len(first), np.nan)
    complete = ~(np.isnan(first).any(1) | np.isnan(second).any(1))
    for name in np.unique(context):
        at = np.flatnonzero((context == name) & complete)
        if len(at) < 2:
            continue
        distance = _distances(first[at].astype(np.float64), second[at].astype(np.float64))
        own = np.diagonal(distance)[:, None]
        others = ~np.eye(len(at), dtype=bool)
        if halves.technical is not None:
            others &= ~halves.technical[np.ix_(at, at)]
        count = others.sum(1)
        farther = ((distance > own) & others).sum(1) + ((distance == own) & others).sum(1) / 2
        share[at] = np.divide(farther, count, out=np.full(len(at), np.nan), where=count > 0)
    return share


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distance of every first half to every second half [m, m], after centering on the mean of all samples."""
    if first.shape[1] == 1:
        return np.abs(first - second.T)
    rows = []
    for half in (first, second):
        centered = half - half.mean(0)
        centered = centered - centered.mean(1, keepdims=True)
        rows.append(centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-30))
    return 1 - rows[0] @ rows[1].T


def _drop(
    results: Results, shuffled: Sequence[np.ndarray], n_boot: int, seed: int
) -> tuple[Measure, Interval, int, int]:
    """The primary metric, its mean drop over shuffles, and the numbers of samples and clusters behind it."""
    names = [f"shuffle {k}" for k in range(len(shuffled))]
    systems = {results.model: results.systems[results.model], **dict(zip(names, shuffled, strict=True))}
    with_shuffles = replace(results, systems=systems, comparators=(), ceiling=None, decides=True)
    measure = primary_measure(with_shuffles, n_boot, seed)
    drops = [drop for name in names if (drop := measure.difference(name)) is not None]
    if not drops:
        nan = float("nan")
        return measure, Interval(nan, nan, nan, 0, nan), 0, 0
    values, n_samples, clusters = np.mean([values for values, _, _ in drops], axis=0), drops[0][1], drops[0][2]
    return measure, interval(values).for_clusters(clusters), n_samples, clusters


def _correlation_of_changes(results: Results, shuffled: np.ndarray) -> float:
    """Correlation over samples and outputs of predicted changes with those from the shuffled input."""
    start = results.context.predicted_from
    own, other = (
        np.asarray(prediction, dtype=np.float64) - (0.0 if start is None else start)
        for prediction in (results.systems[results.model], shuffled)
    )
    defined = ~(np.isnan(own) | np.isnan(other))
    own, other = (np.where(defined, change, np.nan) for change in (own, other))
    outputs = defined.any(0)
    if not outputs.any():
        return float("nan")
    x, y = (change[:, outputs] - np.nanmean(change[:, outputs], axis=0) for change in (own, other))
    # Below this size a change is rounding of a constant.
    size = 1e-6 * np.nanmax(np.abs(np.asarray(results.systems[results.model], dtype=np.float64)))
    if np.sqrt(np.nanmean(x**2)) <= size:
        return float("nan")
    if np.sqrt(np.nanmean(y**2)) <= size:
        return 0.0
    return float(np.nansum(x * y) / np.sqrt(np.nansum(x**2) * np.nansum(y**2)))


def _negated(drop: Interval) -> Interval:
    return replace(drop, value=-drop.value, low=-drop.high, high=-drop.low)


def _plain(value: float) -> float | None:
    """A number that JSON can hold: NaN becomes None."""
    return float(value) if np.isfinite(value) else None


COLLAPSED_BELOW = 0.02
"""Predictions are collapsed if their sd is below this share of the data's sd. That share is the correlation with the
truth for a calibrated predictor, so that a smaller one explains at most 4e-4 of the variance. Models whose predictions
for four perturbations correlated by 1.000 had .0107 and .0128."""
RULES_ABOVE = 0.9
"""A loss term above this share of the total is warned of."""


def spread(results: Results, system: str | None = None) -> dict[str, Any]:
    """Spread of the predictions relative to that of the data; for expression the spread of changes from the control.

    Only ``results.active`` outputs are judged: the others were not trained and are constant on purpose.

    Args:
        results: The predictions.
        system: Name of the system; by default the model under test.

    Returns:
        ``active`` (outputs that are judged), ``over_samples`` (median over outputs of sd(prediction) / sd(measured)),
        ``over_outputs`` (median over samples, None below two outputs or outside expression, where outputs share no
        unit), ``per_output``, ``collapsed_outputs``, ``uncovered`` (measured values without a prediction),
        ``threshold``, and ``collapsed``: at least half of the outputs, or the profile over outputs, below the
        threshold; for expression of the predicted levels too: a constant level is no constant change, since each
        sample's own control is subtracted from it. A spread that cannot be computed is None.
    """
    at = np.arange(len(results.outputs))
    at = at if results.active is None else at[results.active]
    outputs = [results.outputs[i] for i in at]
    measured = np.asarray(results.measured, dtype=np.float64)
    predicted = np.asarray(results.systems[system or results.model], dtype=np.float64)
    uncovered = int((np.isnan(predicted) & ~np.isnan(measured)).sum())
    measured, predicted = measured[:, at], predicted[:, at]
    level_is_flat = False
    context = results.context
    if results.per_gene and context.eval_control is not None and context.predicted_from is not None:
        level = _relative_sd(predicted, measured, np.isnan(measured) | np.isnan(predicted))
        level_is_flat = bool((level < COLLAPSED_BELOW).sum() >= max((~np.isnan(level)).sum(), 1) / 2)
        measured, predicted = measured - context.eval_control[:, at], predicted - context.predicted_from[:, at]
    missing = np.isnan(measured) | np.isnan(predicted)
    per_output = _relative_sd(predicted, measured, missing)
    low = per_output < COLLAPSED_BELOW
    n_defined = int((~np.isnan(per_output)).sum())
    over_outputs = None
    if results.per_gene and len(outputs) > 1:
        over_outputs = _median(_relative_sd(predicted.T, measured.T, missing.T))
    flat_profile = over_outputs is not None and over_outputs < COLLAPSED_BELOW
    return {
        "active": len(outputs),
        "over_samples": _median(per_output),
        "over_outputs": over_outputs,
        "per_output": {
            name: None if np.isnan(value) else float(value) for name, value in zip(outputs, per_output, strict=True)
        },
        "collapsed_outputs": [name for name, is_low in zip(outputs, low, strict=True) if is_low],
        "uncovered": uncovered,
        "threshold": COLLAPSED_BELOW,
        "collapsed": bool(level_is_flat or flat_profile or (n_defined > 0 and low.sum() >= n_defined / 2)),
    }


def loss_share_warnings(history: pd.DataFrame) -> list[dict[str, Any]]:
    """Loss terms above ``RULES_ABOVE`` of the total in any epoch.

    Args:
        history: One row per epoch with ``epoch`` and ``train/share/<term>``; a single term is never warned of.

    Returns:
        Per such term: ``term``, ``n_epochs``, ``first_epoch``, ``worst`` share, and a sentence ``text``.
    """
    columns = [name for name in history.columns if name.startswith("train/share/")]
    warnings: list[dict[str, Any]] = []
    for name in columns if len(columns) > 1 else []:
        above = history[name] > RULES_ABOVE
        if not above.any():
            continue
        term, count = name.removeprefix("train/share/"), int(above.sum())
        first, worst = int(history.loc[above, "epoch"].min()), float(history[name].max())
        extent = f"up to {worst:.1%} of the total, above {RULES_ABOVE:.0%} in {count} epoch(s)"
        row = {"term": term, "n_epochs": count, "first_epoch": first, "worst": worst}
        warnings.append(row | {"text": f"the loss term {term!r} is {extent}"})
    return warnings


def converged(history: Sequence[float], min_delta: float = 1e-3, higher_is_better: bool = True) -> bool:
    """Whether the validation metric has stopped improving.

    Args:
        history: The metric by epoch; NaN where it was undefined.
        min_delta: What counts as improving.
        higher_is_better: Direction.

    Returns:
        False while the best of the last tenth of the epochs (one at least) exceeds the best before it by more
        than ``min_delta``; also with fewer than two epochs or nothing finite in either part: unknown.
    """
    value = np.asarray(history, dtype=np.float64) * (1 if higher_is_better else -1)
    tail = max(1, math.ceil(len(value) / 10))
    before, last = value[:-tail], value[-tail:]
    before, last = before[np.isfinite(before)], last[np.isfinite(last)]
    return bool(len(before) and len(last) and last.max() <= before.max() + min_delta)


def _relative_sd(predicted: np.ndarray, measured: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """sd of each column of ``predicted`` over that of ``measured``; NaN where the data itself is constant."""
    sd_predicted = _sd(np.where(missing, np.nan, predicted))
    sd_measured = _sd(np.where(missing, np.nan, measured))
    return np.divide(sd_predicted, sd_measured, out=np.full_like(sd_measured, np.nan), where=sd_measured > 0)


def _sd(x: np.ndarray) -> np.ndarray:
    n = (~np.isnan(x)).sum(0)
    centered = x - np.nansum(x, 0) / np.maximum(n, 1)
    return np.sqrt(np.nansum(centered**2, 0) / np.maximum(n, 1))


def _median(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmedian(values))
