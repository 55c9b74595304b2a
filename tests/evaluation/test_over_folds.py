"""The verdict over folds and seeds: closed forms, what counts as independent, and coverage on planted differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from torchcell.evaluation.bootstrap import student_quantile
from torchcell.evaluation.comparison import Comparison, best, to_frame
from torchcell.evaluation.evaluate import evaluate
from torchcell.evaluation.pooled import over_folds
from torchcell.evaluation.registry import higher_is_better
from torchcell.evaluation.results import Results


def row(fold: int, difference: float, se: float = 0.1, baseline: str = "ridge", metric: str = "pearson", **more):
    held = {"run": f"f{fold}s0", "split": f"h{fold}", "n_samples": 10, "role": "primary"}
    return held | {"metric": metric, "baseline": baseline, "difference": difference, "se": se} | more


def found(*rows: dict[str, object], metric: str = "pearson", clusters: dict[str, set[str]] | None = None) -> Comparison:
    """Where no clusters are given, runs of one split share their twenty and others none."""
    table = pd.DataFrame(rows)
    own = {run: {f"{split}u{i}" for i in range(20)} for run, split in zip(table["run"], table["split"], strict=True)}
    every = [one for one in over_folds(table, own if clusters is None else clusters) if one.metric == metric]
    return best("primary", metric, every, higher_is_better(metric))


def test_folds_are_independent_so_four_halve_the_error():
    one = found(*(row(fold, 0.1 * fold) for fold in range(4)))
    assert one.difference == pytest.approx(0.15)
    assert one.se == pytest.approx(0.05)
    assert (one.low, one.high) == pytest.approx((0.15 - 1.959964 * 0.05, 0.15 + 1.959964 * 0.05))
    assert (one.n_samples, one.n_clusters, one.outcome) == (40, 80, "better")


def test_what_is_tested_again_makes_nothing_surer():
    """Three seeds of one fold score the same clusters: the interval must not shrink as if they were others."""
    one = found(row(0, 0.1), row(0, 0.2, run="f0s1"))
    assert one.difference == pytest.approx(0.15)
    assert one.se == pytest.approx(0.1)
    assert (one.n_samples, one.n_clusters) == (10, 20)


def test_few_clusters_over_all_folds_widen_the_interval_by_t():
    clusters = {f"f{fold}s0": {f"{fold}a", f"{fold}b", f"{fold}c"} for fold in range(4)}
    one = found(*(row(fold, 0.15) for fold in range(4)), clusters=clusters)
    assert one.n_clusters == 12
    assert one.high == pytest.approx(0.15 + student_quantile(12) * 0.05)
    assert student_quantile(12) == pytest.approx(2.201, abs=1e-3)


def test_folds_that_share_units_are_as_sure_as_the_share_they_do_not():
    """A condition with several wells is tested in more than one fold of a random split."""
    clusters = {"f0s0": {"a", "b", "c", "d"}, "f1s0": {"d", "e", "f", "g"}}
    one = found(row(0, 0.1), row(1, 0.1), clusters=clusters)
    assert one.se == pytest.approx(0.1 * np.sqrt((1 + 1 + 2 * 0.25) / 4))


def test_a_fold_with_more_seeds_weighs_no_more():
    assert found(row(0, 0.0), row(1, 0.3), row(1, 0.3, run="f1s1")).difference == pytest.approx(0.15)


def test_the_best_baseline_is_the_best_over_all_folds_not_of_each():
    """Each fold's own best baseline would be a mixture that no one proposed."""
    rows = [row(0, 0.0), row(1, 0.4), row(0, 0.3, baseline="mean"), row(1, 0.2, baseline="mean")]
    assert (found(*rows).baseline, found(*rows).difference) == ("ridge", pytest.approx(0.2))


def test_where_small_is_good_less_is_better():
    rows = [row(fold, -0.5, metric="mae") for fold in range(2)]
    rows += [row(fold, 0.4, metric="mae", baseline="mean") for fold in range(2)]
    one = found(*rows, metric="mae")
    assert (one.baseline, one.outcome) == ("mean", "worse")


def test_a_baseline_that_few_folds_know_is_compared_where_half_of_them_do():
    """The sum of the singles has no value where a fold trained none of them; it was the best where it has one."""
    rows = [row(fold, 0.5) for fold in range(4)]
    strong = [row(fold, -0.1 * fold, baseline="additive") for fold in range(4)]
    one = found(*rows, *strong[1:3])
    assert (one.baseline, one.difference, one.n_samples) == ("additive", pytest.approx(-0.15), 20)
    assert one.se == pytest.approx(0.1 / np.sqrt(2))
    assert found(*rows, strong[1]).baseline == "ridge"


def test_where_no_baseline_is_known_well_enough_none_is_compared():
    names = ["a", "b", "c"]
    assert found(*(row(fold, 0.5, baseline=name) for fold, name in enumerate(names))).outcome == "no baseline"


def test_a_model_undefined_in_one_fold_is_undefined_over_all():
    assert found(row(0, 0.5), row(1, float("nan"))).outcome == "undefined"


def test_a_fold_whose_difference_has_no_error_is_left_out():
    """Its baseline covers so few samples that resamples are undefined; it used to make the whole verdict undecided."""
    one = found(row(0, 0.5), row(1, 0.7, se=float("nan")))
    assert (one.outcome, one.difference, one.n_samples) == ("better", 0.5, 10)


@pytest.mark.long
def test_the_interval_over_five_folds_covers_what_was_planted():
    """150 times: five folds of 20 clusters, model and baseline of equal skill. An honest interval excludes 0 in one of 20."""
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(150):
        tables = []
        for fold in range(5):
            measured = rng.normal(size=(20, 1))
            systems = {name: measured + rng.normal(size=(20, 1)) for name in ("net", "ridge")}
            names = np.arange(20).astype(str)
            results = Results(names, names, ("y",), measured, systems, model="net")
            table = to_frame(evaluate(results, n_boot=100, seed=fold, primary="mae").verdict.every)
            tables.append(table[table["role"] == "primary"].assign(run=str(fold), split=fold))
        clusters = {str(fold): {f"{fold}-{name}" for name in names} for fold in range(5)}
        outcomes.append(over_folds(pd.concat(tables), clusters)[0].outcome)
    wrong = np.mean([outcome != "no significant difference" for outcome in outcomes])
    assert 0.005 < wrong < 0.11  # 5 %, and three standard errors of 150 tries
