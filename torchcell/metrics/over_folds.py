r"""``over_folds``: what many runs of a config show together, where one alone has too few clusters.

The difference to each baseline is averaged over the runs, each split with the same weight however many seeds it has;
the best baseline is that of the least favorable mean. Its standard error is

.. math::
    se^2 = \sum_{ij} w_i w_j \, r_{ij} \, se_i \, se_j, \quad r_{ij} = |U_i \cap U_j| / \sqrt{|U_i| \, |U_j|}

with U_i the clusters that run i tested: folds of other drugs err independently and make the mean surer, seeds of one
split share all clusters and don't, and what lies between counts by its share (two folds of a random split may both test
a condition). A cluster is taken to err alike wherever it is tested, which makes intervals wide rather than narrow. The
interval is the mean plus and minus t(n - 1) se for the n distinct clusters of all runs, for models trained as these
were: that training parts overlap is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import cast

import numpy as np
import pandas as pd

from torchcell.metrics.bootstrap import Interval, student_quantile
from torchcell.metrics.comparison import MIN_COVERAGE, Comparison, Role
from torchcell.metrics.registry import higher_is_better


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
