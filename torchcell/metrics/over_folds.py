r"""``over_folds``: did the model beat the best baseline over all folds and seeds, where one alone has too few units?

The difference to each baseline is averaged over the runs, each split with the same weight however many seeds it has;
the best baseline is that of the least favourable mean. Its standard error is

.. math::
    se^2 = \sum_{ij} w_i w_j \, r_{ij} \, se_i \, se_j, \quad r_{ij} = |U_i \cap U_j| / \sqrt{|U_i| \, |U_j|}

with U_i the units that run i tested: folds of other drugs err independently and make the mean surer, seeds of one split
share all units and don't, and what lies between counts by its share (two folds of a random split may both test a
condition). A unit is taken to err alike wherever it is tested, which makes intervals wide rather than narrow. The
interval is the mean plus and minus 1.96 se, for models trained as these were: that training parts overlap is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

import numpy as np
import pandas as pd

from torchcell.metrics.bootstrap import Interval
from torchcell.metrics.verdict import MIN_COVERAGE, Comparison, shown

Z = 1.959964
"""Of a 95 % interval of a normal variable."""


def over_folds(
    comparisons: pd.DataFrame, units: Mapping[str, Set[str]], higher_is_better: Callable[[str], bool]
) -> dict[str, list[Comparison]]:
    """The model against each baseline, over several runs.

    Args:
        comparisons: One row per run, metric and baseline: the columns of ``comparisons.csv``, ``run``, and ``split``,
            which runs of one split share.
        units: The grouping units that each run tested.
        higher_is_better: Of a metric's name.

    Returns:
        Metric -> comparisons, in order; ``verdict.best`` finds the best baseline. A baseline is considered if at least
        half of the splits have a difference to it with an error, and compared on those. Where the model is undefined in
        one run it is undefined over all.
    """
    n_splits = comparisons["split"].nunique()
    rows: dict[str, list[Comparison]] = {}
    for names, found in comparisons.groupby(["metric", "baseline"], sort=False):
        metric, baseline = map(str, names)
        kept = rows.setdefault(metric, [])
        # A difference without an error rests on samples too few to resample.
        found = found[found["difference"].isna() | found["se"].notna()]
        if found["split"].nunique() >= MIN_COVERAGE * n_splits:
            kept.append(shown(metric, baseline, *_mean(found, units), higher_is_better(metric)))
    return rows


def _mean(found: pd.DataFrame, units: Mapping[str, Set[str]]) -> tuple[Interval, int]:
    """The mean difference to one baseline on one metric, and the samples it rests on."""
    n_splits = found["split"].nunique()
    weight_R = 1 / (n_splits * found["split"].map(found["split"].value_counts()).to_numpy())
    tested = [units[run] for run in found["run"]]
    shared_RR = np.array([[len(a & b) / np.sqrt(len(a) * len(b)) for b in tested] for a in tested])
    spread_R = weight_R * found["se"].to_numpy()
    mean, se = float(weight_R @ found["difference"]), float(np.sqrt(spread_R @ shared_RR @ spread_R))
    return Interval(mean, mean - Z * se, mean + Z * se, 0, se), round(n_splits * float(weight_R @ found["n_samples"]))
