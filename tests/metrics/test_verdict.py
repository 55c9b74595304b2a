"""The verdict on planted winners, losers, ties, and what can't be judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from torchcell.metrics.evaluate import evaluate
from torchcell.metrics.results import Results

Make = Callable[..., Results]


def test_a_planted_winner_beats_the_best_baseline_on_all_headline_metrics(make_results: Make) -> None:
    verdict = evaluate(make_results(net=1.0, weak=0.2, good=0.5), n_boot=200).verdict
    assert (verdict.beaten, verdict.compared) == (4, 4)
    assert verdict.text == "beats the best baseline on 4 of 4 metrics"
    assert {row.baseline for row in verdict.per_metric} == {"good"}
    assert [row.metric for row in verdict.per_metric] == ["pearson", "spearman", "r2", "mae"]
    by_name = {row.metric: row for row in verdict.per_metric}
    assert by_name["pearson"].low > 0 > by_name["mae"].high


def test_a_planted_loser_beats_nothing(make_results: Make) -> None:
    verdict = evaluate(make_results(net=0.2, good=1.0, weak=0.1), n_boot=200).verdict
    assert (verdict.beaten, verdict.compared) == (0, 4)
    assert "worse on pearson" in verdict.text
    assert {row.outcome for row in verdict.per_metric} == {"lost"}


def test_an_equal_of_the_best_baseline_wins_nothing_though_it_beats_the_weak_one(make_results: Make) -> None:
    verdict = evaluate(make_results(net=0.8, twin=0.8, weak=0.1), n_boot=200).verdict
    assert verdict.beaten == 0
    assert "no difference shown on pearson" in verdict.text


def test_a_copy_of_the_model_ties_exactly(make_results: Make) -> None:
    results = make_results(net=0.8)
    verdict = evaluate(replace(results, systems={"net": results.systems["net"], "copy": results.systems["net"]}))
    assert {(row.difference, row.outcome) for row in verdict.verdict.per_metric} == {(0.0, "undecided")}


def test_the_ceiling_is_no_baseline(make_results: Make) -> None:
    verdict = evaluate(make_results(net=0.8, weak=0.1, twin=1.5, ceiling="twin"), n_boot=200).verdict
    assert verdict.beaten == 4
    only = evaluate(make_results(net=0.8, twin=1.5, ceiling="twin"), n_boot=20).verdict
    assert not only.given
    assert only.text == "no verdict: no baseline to compare with"


def test_a_constant_baseline_leaves_correlations_uncompared_and_named(make_results: Make) -> None:
    verdict = evaluate(make_results(net=0.8, mean=np.full((400, 1), 0.01)), n_boot=200).verdict
    assert (verdict.beaten, verdict.compared) == (2, 2)
    assert "no baseline is defined on pearson, spearman" in verdict.text


def test_an_undefined_model_counts_as_compared_and_not_beaten(make_results: Make) -> None:
    results = make_results(net=np.full((400, 1), 0.1), good=0.5)
    verdict = evaluate(results, n_boot=100).verdict
    assert (verdict.beaten, verdict.compared) == (0, 4)
    assert {row.metric for row in verdict.per_metric if row.outcome == "undefined"} == {"pearson", "spearman"}
    silent = replace(results, systems={**results.systems, "net": np.full((400, 1), np.nan)})
    verdict = evaluate(silent, n_boot=20).verdict
    assert {row.outcome for row in verdict.per_metric} == {"undefined"}
    assert "it has no prediction for 400 measured value(s)" in verdict.text


@pytest.mark.parametrize("scale", [0.0, 0.005])
def test_a_collapsed_model_is_called_collapsed(make_results: Make, scale: float) -> None:
    results = make_results(net=1.0, good=0.5)
    flat = 0.3 + scale * results.systems["net"] / results.systems["net"].std()
    verdict = evaluate(replace(results, systems={**results.systems, "net": flat}), n_boot=50).verdict
    assert verdict.collapsed
    assert verdict.text.startswith("COLLAPSED: its predictions are nearly constant")


def test_an_unconverged_run_gets_no_verdict_and_is_told_why(make_results: Make) -> None:
    verdict = evaluate(make_results(net=1.0, weak=0.1), n_boot=50, converged=False).verdict
    assert not verdict.given
    assert (verdict.beaten, verdict.compared) == (0, 0)
    assert "not converged" in verdict.text
    assert "beats" not in verdict.text
    assert evaluate(make_results(net=1.0, weak=0.1), n_boot=50, converged=True).verdict.given


def test_a_baseline_that_covers_a_part_is_compared_on_the_common_samples_only(make_results: Make) -> None:
    results = make_results(net=0.8, near=0.8)
    # The easy half: on it the baseline is exact, and the model too.
    easy = np.arange(400)[:, None] < 200
    near = np.where(easy, results.measured, np.nan)
    net = np.where(easy, results.measured, results.systems["net"])
    verdict = evaluate(replace(results, systems={"net": net, "near": near}), n_boot=100).verdict
    assert {row.n_samples for row in verdict.per_metric} == {200}
    assert {row.outcome for row in verdict.per_metric} == {"undecided"}


def test_a_baseline_that_covers_less_than_half_is_shown_and_not_compared(make_results: Make) -> None:
    results = make_results(net=0.8, weak=0.1, few=1.5)
    few = np.where(np.arange(400)[:, None] < 40, results.measured, np.nan)
    evaluation = evaluate(replace(results, systems={**results.systems, "few": few}), n_boot=100)
    assert {row.baseline for row in evaluation.verdict.per_metric} == {"weak"}
    assert "few" in evaluation.verdict.text
    assert evaluation.table.query("system == 'few' and metric == 'r2'").value.item() == 1
