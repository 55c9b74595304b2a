"""``over_folds``: did the model beat the best baseline over all folds and seeds, where one alone has too few units?

The differences to each baseline are averaged over the seeds of a fold, then over folds, then over ways to deal the
folds; the best baseline is that of the least favourable mean. Folds test other units, so their errors are independent,
and the mean of F has the standard error sqrt(sum of se^2) / F. Seeds, and other deals of the same units, share what is
tested: their mean is given the mean of their errors. The interval is the mean plus and minus 1.96 of that. It speaks of
the units tested, for models trained as these were: that the training parts of folds overlap is not in it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from torchcell.metrics.bootstrap import Interval
from torchcell.metrics.verdict import Comparison, best, shown

Z = 1.959964
"""Of a 95 % interval of a normal variable."""


def over_folds(comparisons: pd.DataFrame, higher_is_better: Callable[[str], bool]) -> list[Comparison]:
    """The model against the best baseline of each metric, over several runs.

    Args:
        comparisons: One row per run, metric and baseline, the columns of ``comparisons.csv`` with ``deal`` (how the
            folds were dealt), ``fold`` and ``run`` before them.
        higher_is_better: Of a metric's name.

    Returns:
        A comparison per metric, in order. A baseline is considered if every run has a difference to it.
    """
    n_runs = comparisons["run"].nunique()
    rows: dict[str, list[Comparison]] = {}
    for names, found in comparisons.groupby(["metric", "baseline"], sort=False):
        metric, baseline = map(str, names)
        kept, higher = rows.setdefault(metric, []), higher_is_better(metric)
        if found["run"].nunique() == n_runs:
            kept.append(shown(metric, baseline, *_mean(found), higher))
    return [best(metric, kept, higher_is_better(metric)) for metric, kept in rows.items()]


def _mean(found: pd.DataFrame) -> tuple[Interval, int]:
    """The mean difference to one baseline on one metric, and how many samples it rests on."""
    by_fold = found.groupby(["deal", "fold"])[["difference", "se", "n_samples"]].mean()
    by_deal = by_fold.groupby("deal").agg(
        difference=("difference", "mean"),
        se=("se", lambda se: np.sqrt(np.square(se).sum()) / len(se)),
        n_samples=("n_samples", "sum"),
    )
    difference, se, n_samples = by_deal.mean()
    # Undefined in one run is undefined over all.
    difference = np.nan if found["difference"].isna().any() else difference
    se = np.nan if found["se"].isna().any() else se
    return Interval(difference, difference - Z * se, difference + Z * se, 0, se), round(n_samples)
