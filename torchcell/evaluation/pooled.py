"""Runs of one benchmark together: over folds, over seeds, and the verdict of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, cast

import numpy as np
import pandas as pd

from torchcell.evaluation.bootstrap import Interval, student_quantile
from torchcell.evaluation.checks import UNCHECKED, Check, collapse, input_check, signal_check
from torchcell.evaluation.comparison import MIN_COVERAGE, Comparison, Role
from torchcell.evaluation.registry import higher_is_better
from torchcell.evaluation.results import Design
from torchcell.evaluation.verdict import FEWEST_RESAMPLES, Evidence, Verdict, judge


def over_folds(comparisons: pd.DataFrame, units: Mapping[str, Set[str]]) -> list[Comparison]:
    """The model against each baseline, over several runs.

    Args:
        comparisons: One row per run, role, metric and baseline: the columns of ``comparisons.csv``, ``run``, and
            ``split``, which runs of one split share.
        units: The clusters that each run tested.

    Returns:
        In order; ``verdict.judge`` finds the best baseline. A baseline is considered if at least half of the splits
        have a difference to it with an error, and compared on those. Where the model is undefined in one run it is
        undefined over all.
    """
    n_splits = comparisons["split"].nunique()
    rows: list[Comparison] = []
    for names, found in comparisons.groupby(["role", "metric", "baseline"], sort=False):
        role, metric, baseline = map(str, names)
        # A difference without an error rests on samples too few to resample.
        found = found[found["difference"].isna() | found["se"].notna()]
        if found["split"].nunique() >= MIN_COVERAGE * n_splits:
            better = role == "signal" or higher_is_better(metric)
            shown, n_samples, n_clusters = _mean(found, units)
            rows.append(Comparison.of(shown, cast(Role, role), metric, baseline, n_samples, n_clusters, better))
    return rows


def _mean(found: pd.DataFrame, units: Mapping[str, Set[str]]) -> tuple[Interval, int, int]:
    """The mean difference to one baseline on one metric, and the samples and clusters it rests on."""
    n_splits = found["split"].nunique()
    weight_R = 1 / (n_splits * found["split"].map(found["split"].value_counts()).to_numpy())
    tested = [units[run] for run in found["run"]]
    shared_RR = np.array([[len(a & b) / np.sqrt(len(a) * len(b)) for b in tested] for a in tested])
    spread_R = weight_R * found["se"].to_numpy()
    mean, se = float(weight_R @ found["difference"]), float(np.sqrt(spread_R @ shared_RR @ spread_R))
    n_clusters = len(set().union(*tested))
    wide = student_quantile(n_clusters) * se
    n_samples = round(n_splits * float(weight_R @ found["n_samples"]))
    return Interval(mean, mean - wide, mean + wide, 0, se), n_samples, n_clusters


CARRIED = ("starting_weights", UNCHECKED)
"""Checks of a run that stand for all runs it is pooled with."""


def pooled_verdict(
    comparisons: pd.DataFrame,
    units: Mapping[str, Set[str]],
    summaries: Sequence[Mapping[str, Any]],
    design: Design,
    systems: Sequence[str] = (),
) -> Verdict:
    """What runs of one config show together.

    Args:
        comparisons: See ``over_folds``.
        units: The clusters that each run tested.
        summaries: ``metrics.json`` of each run.
        design: Of the split; its clusters are those of all folds.
        systems: Baselines of the runs, so that those with too few values can be named.
    """
    rows = over_folds(comparisons, units)
    known = {row.baseline for row in rows if row.role == "primary"}
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
        left_out=tuple(name for name in systems if name not in known),
        ceiling=_ceiling(summaries),
        checks=(*checks, *_carried(summaries), *_parts(summaries)),
        notes=tuple(dict.fromkeys(_notes(summaries, rising))),
    )
    return judge(evidence)


def _carried(summaries: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Checks without an interval that hold of all runs together if they hold of one: the first run that has each."""
    found: dict[str, Check] = {}
    for one in summaries:
        for name in CARRIED:
            if name in one["checks"]:
                status, said = one["checks"][name]["status"], one["checks"][name]["finding"]
                found.setdefault(name, Check(name, status, said, said if status == "failed" else ""))
    return list(found.values())


def _notes(summaries: Sequence[Mapping[str, Any]], rising: int) -> Iterator[str]:
    """How the baselines of any run depart from the standard ones, and how many runs had not converged."""
    for one in summaries:
        yield from one.get("baseline_departures", ())
    if rising:
        yield f"{rising} of {len(summaries)} runs not converged"


def _pooled_check(row: Comparison, summaries: Sequence[Mapping[str, Any]]) -> Check:
    """The check of which ``row`` pools the intervals."""
    found = Interval(row.difference, row.low, row.high, 0, row.se)
    if row.role == "signal":
        return signal_check(found, row)
    name = str(row.baseline)
    checks = [one["checks"][name] for one in summaries if "correlation" in one["checks"].get(name, {})]
    # A run whose predictions do not vary has no correlation: it ignores its input.
    correlation = float(np.mean([np.nan if one["correlation"] is None else one["correlation"] for one in checks]))
    return input_check(name, correlation, found, row, decides=True)


def _parts(summaries: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Inputs that do not decide, unused if they are in every run."""
    deciding = {name for one in summaries for name, value in one["checks"].items() if _decides(value)}
    statuses: dict[str, list[str]] = {}
    for one in summaries:
        for name, value in one["checks"].items():
            if name.endswith("_shuffled") and name not in deciding and isinstance(value, Mapping):
                statuses.setdefault(name, []).append(str(value.get("status")))
    return [
        Check(name, "failed" if set(every) == {"failed"} else "ok" if "ok" in every else "not shown", "")
        for name, every in statuses.items()
    ]


def _decides(check: Any) -> bool:
    return isinstance(check, Mapping) and bool(check.get("decides"))


def _ceiling(summaries: Sequence[Mapping[str, Any]]) -> tuple[str, float] | None:
    every = [one["verdict"].get("ceiling") for one in summaries]
    if not all(every):
        return None
    return str(every[0]["name"]), float(np.mean([one["value"] for one in every]))
