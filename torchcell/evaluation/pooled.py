"""Several runs of one benchmark: comparisons over folds and seeds, and their common verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, cast

import numpy as np
import pandas as pd

from torchcell.evaluation.bootstrap import Interval, student_quantile
from torchcell.evaluation.checks import MEASURED, UNCHECKED, Check, collapse, input_check, signal_check
from torchcell.evaluation.comparison import MIN_COVERAGE, Comparison, Role
from torchcell.evaluation.registry import higher_is_better
from torchcell.evaluation.results import Design
from torchcell.evaluation.verdict import FEWEST_RESAMPLES, Evidence, Verdict, judge


def over_folds(comparisons: pd.DataFrame, clusters: Mapping[str, Set[str]]) -> list[Comparison]:
    """The model against each baseline, over several runs.

    Args:
        comparisons: One row per run, role, metric and baseline: the columns of ``comparisons.csv``, ``run``, and
            ``split``, which runs of one split share.
        clusters: Names of the clusters that each run tested.

    Returns:
        One comparison per role, metric and baseline; ``verdict.judge`` finds the best baseline. A baseline is compared
        if at least half of the splits have a difference with a standard error to it, and on those. Where the model is
        undefined in one run it is undefined over all.
    """
    n_splits = comparisons["split"].nunique()
    rows: list[Comparison] = []
    for names, found in comparisons.groupby(["role", "metric", "baseline"], sort=False):
        role, metric, baseline = map(str, names)
        # A difference without a standard error has too few samples to resample.
        found = found[found["difference"].isna() | found["se"].notna()]
        if found["split"].nunique() >= MIN_COVERAGE * n_splits:
            higher = role == "signal" or higher_is_better(metric)
            difference, n_samples, n_clusters = _mean(found, clusters)
            rows.append(Comparison.of(difference, cast(Role, role), metric, baseline, n_samples, n_clusters, higher))
    return rows


def _mean(found: pd.DataFrame, clusters: Mapping[str, Set[str]]) -> tuple[Interval, int, int]:
    """The mean difference to one baseline on one metric, with the numbers of samples and clusters."""
    n_splits = found["split"].nunique()
    weight_R = 1 / (n_splits * found["split"].map(found["split"].value_counts()).to_numpy())
    tested = [clusters[run] for run in found["run"]]
    shared_RR = np.array([[len(a & b) / np.sqrt(len(a) * len(b)) for b in tested] for a in tested])
    spread_R = weight_R * found["se"].to_numpy()
    mean, se = float(weight_R @ found["difference"]), float(np.sqrt(spread_R @ shared_RR @ spread_R))
    n_clusters = len(set().union(*tested))
    half_width = student_quantile(n_clusters) * se
    n_samples = round(n_splits * float(weight_R @ found["n_samples"]))
    return Interval(mean, mean - half_width, mean + half_width, 0, se), n_samples, n_clusters


CARRIED = ("starting_weights", MEASURED, UNCHECKED)
"""Checks of one run that hold for all runs it is pooled with."""


def pooled_verdict(
    comparisons: pd.DataFrame,
    clusters: Mapping[str, Set[str]],
    summaries: Sequence[Mapping[str, Any]],
    design: Design,
    systems: Sequence[str] = (),
) -> Verdict:
    """The verdict of several runs of one config.

    Args:
        comparisons: See ``over_folds``.
        clusters: Names of the clusters that each run tested.
        summaries: ``metrics.json`` of each run.
        design: Design of the split; its clusters are those of all folds.
        systems: Baselines of the runs; those with too few values are named.
    """
    rows = over_folds(comparisons, clusters)
    compared = {row.baseline for row in rows if row.role == "primary"}
    n, collapsed = len(summaries), sum(bool(one.get("collapsed")) for one in summaries)
    rising = sum(one.get("converged") is False for one in summaries)
    checks = [_pooled_check(row, summaries) for row in rows if row.role in ("input", "signal")]
    checks += [collapse(f"in {collapsed} of {n} runs")] if collapsed else []
    evidence = Evidence(
        comparisons=tuple(row for row in rows if row.role not in ("input", "signal")),
        metric=str(summaries[0]["verdict"]["metric"]),
        chosen=bool(summaries[0]["verdict"]["metric_chosen"]),
        n_missing=(sum(int(one["verdict"]["missing"]) for one in summaries), 0),
        converged=False if rising else None,
        part=str(summaries[0].get("part", "test")),
        n_boot=min(int(one.get("n_boot", FEWEST_RESAMPLES)) for one in summaries),
        data_changed=any(bool(one.get("data_changed")) for one in summaries),
        design=design,
        left_out=tuple(name for name in systems if name not in compared),
        ceiling=_ceiling(summaries),
        checks=(*checks, *_carried(summaries), *_parts(summaries)),
        notes=tuple(dict.fromkeys(_notes(summaries, rising))),
    )
    return judge(evidence)


def _carried(summaries: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Checks without an interval that hold for all runs if they hold for one, each from the first run that has it."""
    checks: dict[str, Check] = {}
    for one in summaries:
        for name in CARRIED:
            if name in one["checks"]:
                status, finding = one["checks"][name]["status"], one["checks"][name]["finding"]
                checks.setdefault(name, Check(name, status, finding, finding if status == "failed" else ""))
    return list(checks.values())


def _notes(summaries: Sequence[Mapping[str, Any]], rising: int) -> Iterator[str]:
    """How baselines of any run differ from the standard ones, remarks, and how many runs had not converged."""
    for key in ("baseline_departures", "remarks"):
        for one in summaries:
            texts = one.get(key)
            yield from map(str, texts if isinstance(texts, list) else ())
    if rising:
        yield f"{rising} of {len(summaries)} runs not converged"


def _pooled_check(row: Comparison, summaries: Sequence[Mapping[str, Any]]) -> Check:
    """The check whose intervals ``row`` pools."""
    pooled = Interval(row.difference, row.low, row.high, 0, row.se)
    if row.role == "signal":
        return signal_check(pooled, row)
    name = str(row.baseline)
    checks = [one["checks"][name] for one in summaries if "correlation" in one["checks"].get(name, {})]
    # A run whose predictions do not vary has no correlation; the mean is then NaN, which fails the check.
    correlation = float(np.mean([np.nan if one["correlation"] is None else one["correlation"] for one in checks]))
    return input_check(name, correlation, pooled, row, decides=True)


def _parts(summaries: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Checks of inputs that do not decide: failed if they failed in every run, ok if they were ok in one."""
    deciding = {name for one in summaries for name, value in one["checks"].items() if _decides(value)}
    statuses: dict[str, list[str]] = {}
    for one in summaries:
        for name, value in one["checks"].items():
            if name.endswith("_shuffled") and name not in deciding and isinstance(value, Mapping):
                statuses.setdefault(name, []).append(str(value.get("status")))
    return [
        Check(name, "failed" if set(run) == {"failed"} else "ok" if "ok" in run else "not shown", "")
        for name, run in statuses.items()
    ]


def _decides(check: Any) -> bool:
    return isinstance(check, Mapping) and bool(check.get("decides"))


def _ceiling(summaries: Sequence[Mapping[str, Any]]) -> tuple[str, float] | None:
    ceilings = [one["verdict"].get("ceiling") for one in summaries]
    if not all(ceilings):
        return None
    return str(ceilings[0]["name"]), float(np.mean([ceiling["value"] for ceiling in ceilings]))
