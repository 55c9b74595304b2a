"""The verdict: did the model beat the best baseline, on which metrics, by how much?

Only the headline metrics of the task count (``registry.HEADLINE``). For each, the best baseline is the one
with the least favourable paired difference among those that cover at least half of the samples that any system
covers, on the samples that model and baseline share; with full coverage that is the baseline of best value. A metric is
beaten when the 95 % interval of the paired difference lies on the better side of 0. A ceiling is no baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from torchcell.metrics.bootstrap import Interval, paired
from torchcell.metrics.registry import HEADLINE
from torchcell.metrics.results import Results

if TYPE_CHECKING:
    from torchcell.metrics.evaluate import Scored

MIN_COVERAGE = 0.5
"""A baseline that has fewer of the values that can be had is shown, not compared. A value that no system has, such as
``des`` where nothing is significant, can't be had."""

UNCONVERGED = "no verdict: not converged, the validation metric was still rising"

MOST_NAMED = 8
"""Metrics that the sentence names; all comparisons stand in the report."""


@dataclass(frozen=True)
class Comparison:
    """The model against its best baseline on one metric.

    Attributes:
        metric: Name as in the table.
        baseline: The best baseline, or the rival; None where no baseline is defined.
        difference, low, high: Model minus baseline with its paired 95 % interval, in the metric's units.
        se: Standard error of the difference, the resamples' standard deviation times sqrt(U / (U - 1)) for U units.
        outcome: ``beaten``, ``lost``, ``undecided``, ``undefined`` (the model is undefined) or
            ``no baseline`` (none is defined; not counted).
        n_samples: Samples that both cover.
    """

    metric: str
    baseline: str | None
    difference: float
    low: float
    high: float
    se: float
    outcome: str
    n_samples: int


@dataclass(frozen=True)
class Verdict:
    """One line on the model, and what it rests on.

    Attributes:
        text: For the reader.
        beaten: Metrics on which the best baseline was beaten; 0 where there is no verdict.
        compared: Headline metrics on which a baseline is defined; 0 where there is no verdict.
        per_metric: One comparison per headline metric, with the best baseline.
        every: Those with all baselines; folds differ in which one is best, and ``over_folds`` finds it for all.
        collapsed: The predictions are nearly constant, or what ``with_collapse`` names has collapsed.
        given: False for an unconverged run, or one without baselines.
    """

    text: str
    beaten: int
    compared: int
    per_metric: tuple[Comparison, ...]
    every: tuple[Comparison, ...]
    collapsed: bool
    given: bool

    def to_frame(self) -> pd.DataFrame:
        """The table of ``comparisons.csv``: one row per headline metric and baseline."""
        return pd.DataFrame([asdict(row) for row in self.every], columns=[one.name for one in fields(Comparison)])

    def with_collapse(self, what: str) -> Verdict:
        """The same, headed by what has collapsed besides."""
        return replace(self, text=f"COLLAPSED: {what}; {self.text}", collapsed=True)


def judge(scored: Sequence[Scored], results: Results, spread: Mapping[str, Any], converged: bool | None) -> Verdict:
    """Compare the model with the best baseline on every headline metric.

    Args:
        scored: Every metric with its resamples.
        results: Predictions of the systems that are compared; where there are several, any of them.
        spread: ``guards.spread`` of the model.
        converged: False withholds the verdict.
    """
    headline = [one for one in scored if one.metric.name in HEADLINE[one.results.task]]
    every = [compare(one, one.results.baselines) for one in headline]
    rows = tuple(best(one.name, found, one.metric.higher_is_better) for one, found in zip(headline, every, strict=True))
    beaten = sum(row.outcome == "beaten" for row in rows)
    compared = sum(row.outcome != "no baseline" for row in rows)
    given = converged is not False and compared > 0
    if converged is False:
        text = UNCONVERGED
    elif not compared:
        text = "no verdict: no baseline to compare with"
    else:
        text = sentence(rows)
        if few := [name for name in results.baselines if not any(_comparable(one, name) for one in headline)]:
            text += f"; not compared, with too few samples covered: {', '.join(few)}"
    if spread["collapsed"]:
        text = f"COLLAPSED: its predictions are nearly constant{_extent(spread)}; {text}"
    if spread["active"] < len(results.outputs):
        text += f"; its weights were trained on {spread['active']:,} of {len(results.outputs):,} outputs"
    if spread["uncovered"]:
        text += f"; it has no prediction for {spread['uncovered']:,} measured value(s)"
    return Verdict(
        text,
        beaten if given else 0,
        compared if given else 0,
        rows,
        tuple(row for found in every for row in found),
        bool(spread["collapsed"]),
        given,
    )


def compare(one: Scored, others: Sequence[str]) -> list[Comparison]:
    """The model against each of ``others`` on one metric; those that cover too little are left out."""
    results, covered = one.results, one.covered(one.results.model)
    rows = []
    for name in others:
        if not _comparable(one, name):
            continue
        theirs = one.covered(name)
        shared = covered & theirs
        rival = one.values(name, shared if covered.any() else theirs)
        if not np.isnan(rival[0]):
            found = paired(one.values(results.model, shared), rival)
            units = one.weights.at(shared).n_units
            found = replace(found, se=found.se * (units / max(units - 1, 1)) ** 0.5)
            rows.append(shown(one.name, name, found, int(shared.sum()), one.metric.higher_is_better))
    return rows


def best(metric: str, rows: Sequence[Comparison], higher_is_better: bool) -> Comparison:
    """The comparison with the best baseline, that of the least favourable difference."""
    nan, sign = float("nan"), 1 if higher_is_better else -1
    without = Comparison(metric, None, nan, nan, nan, nan, "no baseline", 0)
    # While the model is undefined the first is kept: it shows that a baseline exists.
    return min(rows, key=lambda row: np.inf if np.isnan(row.difference) else sign * row.difference, default=without)


def shown(metric: str, baseline: str, found: Interval, n_samples: int, higher_is_better: bool) -> Comparison:
    """What the difference ``found`` between model and baseline shows."""
    outcome = "undecided"
    if np.isnan(found.value):
        outcome = "undefined"
    elif found.excludes_zero:
        outcome = "beaten" if (found.value > 0) == higher_is_better else "lost"
    return Comparison(metric, baseline, found.value, found.low, found.high, found.se, outcome, n_samples)


def _comparable(one: Scored, other: str) -> bool:
    """Whether ``other`` has enough of the values that any system has to be held against the model.

    Rivals have no say in what can be had, so that the verdict is the same beside any.
    """
    covered = one.covered(other)
    systems = [system for system in one.results.ordered if system not in one.results.rivals]
    definable = np.logical_or.reduce([one.covered(system) for system in systems])
    return bool(covered.any() and covered.sum() >= MIN_COVERAGE * definable.sum())


def sentence(
    rows: Sequence[Comparison], won: str = "beats the best baseline", absent: str = "no baseline is defined on"
) -> str:
    """On how many metrics the model is better than the best baseline, and what the others show; ``won`` and ``absent``
    begin what is said of those, and of the metrics without a baseline.
    """
    named: dict[str, list[str]] = {}
    for row in rows:
        named.setdefault(row.outcome, []).append(row.metric)
    compared = sum(row.outcome != "no baseline" for row in rows)
    parts = [f"{won} on {len(named.get('beaten', ()))} of {compared} metrics"]
    for outcome, said in (
        ("lost", "worse on"), ("undecided", "no difference shown on"),
        ("undefined", "undefined on"), ("no baseline", absent),
    ):  # fmt: skip
        if names := named.get(outcome):
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            parts.append(f"{said} {', '.join(names[:MOST_NAMED])}{more}")
    return "; ".join(parts)


def _extent(spread: Mapping[str, Any]) -> str:
    value = spread["over_samples"]
    return "" if value is None else f" (spread {value:.2g} of the data's sd)"
