"""The verdict on planted winners, losers, ties, and what can't be judged; its error rates under a simulated null."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from torchcell.evaluation.bootstrap import resample
from torchcell.evaluation.checks import UNCHECKED, Check
from torchcell.evaluation.evaluate import evaluate
from torchcell.evaluation.results import Design, Results
from torchcell.evaluation.scored import measure, scores
from torchcell.evaluation.verdict import Evidence, Verdict, judge, short

Make = Callable[..., Results]


def judged(results: Results, *checks: Check, n_boot: int = 200, **more) -> Verdict:
    return evaluate(results, n_boot=n_boot, **more).with_checks(*checks).verdict


def test_a_planted_winner_is_better_than_the_best_baseline_and_calibrated(make_results: Make) -> None:
    verdict = judged(make_results(net=1.0, weak=0.2, good=0.5))
    assert (verdict.kind, verdict.color, verdict.primary.baseline) == ("better", "green", "good")
    assert verdict.text.startswith("better than good by .")
    assert " pearson over 80 clusters" in verdict.text
    assert [row.metric for row in verdict.calibration] == ["r2"]
    assert {row.metric for row in verdict.beside} == {"spearman", "mae"}


def test_one_metric_decides_and_no_other_adds_to_it(make_results: Make) -> None:
    """A model that beat one metric of four used to be printed in green."""
    results = make_results(net=0.8, twin=0.8)
    close = results.measured + 0.02 * np.random.default_rng(9).normal(size=(400, 1))
    ranked = replace(results, systems={"net": results.systems["net"], "twin": close})
    verdict = judged(ranked)
    assert (verdict.kind, verdict.color) == ("worse", "red")
    assert "of 4" not in verdict.text
    assert verdict.text.startswith("worse than twin by .")


def test_better_and_worse_calibrated_is_not_green(make_results: Make) -> None:
    results = make_results(net=1.0, good=0.5)
    wide = 5 * results.systems["net"]
    verdict = judged(replace(results, systems={**results.systems, "net": wide}))
    assert (verdict.kind, verdict.color) == ("better", "grey")
    assert "; r2 worse than good by " in verdict.text


def test_an_equal_of_the_best_baseline_shows_no_significant_difference(make_results: Make) -> None:
    verdict = judged(make_results(net=0.8, twin=0.8, weak=0.1))
    assert (verdict.kind, verdict.color) == ("no significant difference", "grey")
    assert verdict.text.startswith("no significant difference from twin: ")


def test_a_copy_of_the_model_ties_exactly(make_results: Make) -> None:
    results = make_results(net=0.8)
    verdict = judged(replace(results, systems={"net": results.systems["net"], "copy": results.systems["net"]}))
    assert (verdict.primary.difference, verdict.kind) == (0.0, "no significant difference")


def test_the_ceiling_is_no_baseline_and_is_named(make_results: Make) -> None:
    verdict = judged(make_results(net=0.8, weak=0.1, twin=1.5, ceiling="twin"))
    assert verdict.kind == "better"
    assert "; ceiling ." in verdict.text
    only = judged(make_results(net=0.8, twin=1.5, ceiling="twin"))
    assert only.text.startswith("no verdict: no baseline to compare with")


def test_one_replicate_below_a_baseline_is_called_what_it_is(make_results: Make) -> None:
    results = replace(make_results(net=0.8, weak=0.3, twin=0.2, ceiling="twin"), design=Design(ceiling="one replicate"))
    text = judged(results).text
    assert "; one replicate ." in text
    assert "(Spearman-Brown)" in text


def test_a_constant_baseline_scores_no_skill_and_takes_part(make_results: Make) -> None:
    """The mean has no correlation; it used to drop out, and with it the only baseline."""
    verdict = judged(make_results(net=0.8, mean=np.full((400, 1), 0.01)))
    assert (verdict.kind, verdict.primary.baseline) == ("better", "mean")
    assert verdict.primary.difference == pytest.approx(evaluate(make_results(net=0.8), n_boot=2).table.value[0])


def test_a_model_without_predictions_for_some_samples_gets_no_verdict(make_results: Make) -> None:
    """Silence on the hard samples must not pay."""
    results = make_results(net=0.8, good=0.5)
    holes = np.where(np.arange(400)[:, None] < 40, np.nan, results.systems["net"])
    verdict = judged(replace(results, systems={**results.systems, "net": holes}))
    assert verdict.kind == "no verdict"
    assert "it has no prediction for 40 of 400 values" in verdict.text
    silent = replace(results, systems={**results.systems, "net": np.full((400, 1), np.nan)})
    assert judged(silent).kind == "no verdict"


@pytest.mark.parametrize("scale", [0.0, 0.005, 0.0128])
def test_a_collapsed_model_is_called_collapsed(make_results: Make, scale: float) -> None:
    results = make_results(net=1.0, good=0.5)
    flat = 0.3 + scale * results.systems["net"] / results.systems["net"].std()
    verdict = judged(replace(results, systems={**results.systems, "net": flat}))
    assert verdict.collapsed
    assert verdict.text.startswith("no verdict: collapsed: its predictions are nearly constant")


def test_an_unconverged_run_shows_the_comparison_as_provisional_and_what_to_try(make_results: Make) -> None:
    found = evaluate(make_results(net=1.0, weak=0.1), n_boot=50, converged=False).with_evidence(max_epochs=40)
    text = found.verdict.text
    assert text.startswith(
        "no verdict: not converged, the validation metric was still rising; try trainer.max_epochs=40"
    )
    assert "; the comparison so far, with weak: ." in text
    assert found.verdict.color == "grey"
    assert evaluate(make_results(net=1.0, weak=0.1), n_boot=50, converged=True).verdict.kind == "better"


def test_a_provisional_comparison_with_a_better_baseline_has_a_number_below_0(make_results: Make) -> None:
    """It stood there without its sign: .289 [.035, .547] for a model that was worse by so much."""
    found = evaluate(make_results(net=0.1, good=1.0), n_boot=50, converged=False).verdict
    assert found.primary.outcome == "worse"
    assert "; the comparison so far, with good: -." in found.text


def test_changed_data_withhold_the_verdict(make_results: Make) -> None:
    found = evaluate(make_results(net=1.0, weak=0.1), n_boot=50).with_evidence(data_changed=True)
    assert found.verdict.text.startswith("no verdict: the data are not those it was trained on")


@pytest.mark.parametrize("status", ["failed", "not shown"])
def test_a_check_decides_before_color_does(make_results: Make, status: str) -> None:
    """The verdict never saw the checks: a model that ignored its input was green."""
    check = Check("perturbation_shuffled", status, "seen", "input ignored (perturbation)")  # type: ignore[arg-type]
    verdict = judged(make_results(net=1.0, weak=0.1), check)
    assert (verdict.kind, verdict.color, verdict.reason) == ("no verdict", "grey", "input ignored (perturbation)")
    part = replace(check, name="drug_shuffled", reason="")
    other = replace(part, name="dose_shuffled", status="ok")
    verdict = judged(make_results(net=1.0, weak=0.1), part, other)
    assert verdict.kind == "better"
    assert ("; drug not used: the prediction rests on dose" in verdict.text) == (status == "failed")


def test_an_input_whose_use_was_not_checked_is_not_passed_over(make_results: Make) -> None:
    """A user's own data may not say how inputs are shuffled, and a fold may hold one cell line alone."""
    results = make_results(net=1.0, weak=0.1)
    assert judged(results, Check(UNCHECKED, "not applicable", "seen")).text.endswith("; input use not checked")
    same = Check("cell_line_shuffled", "not applicable", "all samples have the same input")
    assert "; cell line is the same for all test samples: its use can't be checked" in judged(results, same).text


def test_below_ten_clusters_nothing_is_better_and_worse_may_be_said(make_results: Make) -> None:
    group = np.array([f"g{i % 6}" for i in range(400)])
    design = Design("perturbed gene", 30, "unseen_perturbation", 5)
    results = replace(make_results(net=1.0, weak=0.2, group=group), design=design)
    verdict = judged(results)
    assert verdict.kind == "no verdict"
    assert (
        "too few clusters (6 perturbed genes, 10 are needed): pool the folds by -m split.fold=0,1,2,3,4" in verdict.text
    )
    few = replace(results, design=replace(design, n_clusters=6))
    assert "10 are needed): the data have no more" in judged(few).text
    lost = replace(make_results(net=0.1, good=2.0, group=group), design=design)
    assert judged(lost).kind == "worse"


def test_the_part_it_learned_from_is_no_test(make_results: Make) -> None:
    verdict = judged(replace(make_results(net=1.0, weak=0.2), part="train"))
    assert verdict.text.startswith("no verdict: the part 'train' is what it learned from; ")
    assert judged(replace(make_results(net=1.0, weak=0.2), part="val")).kind == "no verdict"


def test_two_resamples_make_no_interval(make_results: Make) -> None:
    """An override n_boot=2 made any difference look sure."""
    verdict = judged(make_results(net=0.52, weak=0.5), n_boot=2)
    assert verdict.text.startswith("no verdict: too few resamples (2, 50 are needed)")


def test_a_random_split_says_so_first(make_results: Make) -> None:
    results = replace(make_results(net=1.0, weak=0.2), design=Design(split="random"))
    assert judged(results).text.startswith("on a random split: better than weak")


def test_a_baseline_that_covers_a_part_is_compared_on_the_common_samples_only(make_results: Make) -> None:
    results = make_results(net=0.8, near=0.8)
    # The easy half: on it the baseline is exact, and the model too.
    easy = np.arange(400)[:, None] < 200
    near = np.where(easy, results.measured, np.nan)
    net = np.where(easy, results.measured, results.systems["net"])
    verdict = judged(replace(results, systems={"net": net, "near": near}))
    assert verdict.primary.n_samples == 200
    assert verdict.kind == "no significant difference"


def test_a_baseline_that_covers_less_than_half_is_shown_and_not_compared(make_results: Make) -> None:
    results = make_results(net=0.8, weak=0.1, few=1.5)
    few = np.where(np.arange(400)[:, None] < 40, results.measured, np.nan)
    evaluation = evaluate(replace(results, systems={**results.systems, "few": few}), n_boot=100)
    assert evaluation.verdict.primary.baseline == "weak"
    assert "not compared, with too few samples covered: few" in evaluation.verdict.text
    assert evaluation.table.query("system == 'few' and metric == 'r2'").value.item() == 1


def test_several_outputs_are_judged_by_their_mean(make_results: Make) -> None:
    """A win on one phenotype and a loss on the other is no win."""
    one = make_results(net=1.0, other=0.3)
    y, good, bad = one.measured, one.systems["net"], one.systems["other"]
    two = replace(
        one, outputs=("a", "b"), measured=np.hstack([y, y]),
        systems={"net": np.hstack([good, bad]), "other": np.hstack([bad, good])},
    )  # fmt: skip
    found = evaluate(two, n_boot=100)
    assert found.primary == "pearson"
    assert found.verdict.primary.difference == pytest.approx(0, abs=1e-9)
    mean = found.table.query("metric == 'pearson'").set_index("system").value
    each = found.table.query("metric in ('a/pearson', 'b/pearson')").groupby("system").value.mean()
    assert mean["net"] == pytest.approx(each["net"])


def test_a_config_may_name_another_primary_metric_and_the_line_says_so(make_results: Make) -> None:
    verdict = judged(make_results(net=1.0, weak=0.2), primary="spearman")
    assert verdict.primary.metric == "spearman"
    assert verdict.text.endswith("spearman was chosen as primary metric before the run")
    with pytest.raises(Exception, match="no metric 'sperman' for the task"):
        judged(make_results(net=1.0, weak=0.2), primary="sperman")


def test_the_summary_is_plain_json(make_results: Make) -> None:
    told = judged(make_results(net=1.0, weak=0.2)).summary()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert (told["class"], told["baseline"], told["clusters"]) == ("better", "weak", 80)


@pytest.mark.parametrize(("value", "said"), [(0.011, ".011"), (-0.0041, "-.004"), (-0.0001, ".000"), (1.5, "1.500")])
def test_numbers_are_short(value: float, said: str) -> None:
    assert short(value) == said


# The error rates of the rule ---------------------------------------------------------------------------


def kind_of(results: Results, name: str, seed: int) -> str:
    """The class by one metric alone, which is all that decides."""
    scored = scores(results, resample(results.group, 200, seed), several=False)
    compared = measure(scored, name).compared(results.baselines, "primary")
    return judge(Evidence(compared, name)).kind


def outcomes(n_clusters: int, draws: int, shift: float, seed: int) -> list[str]:
    """Verdict classes where the model's error in a cluster differs from the baseline's by ``shift`` standard errors.

    Each cluster has four samples and errs as a whole. The metric is a mean over samples, whose true standard error
    over clusters is known.
    """
    rng, found = np.random.default_rng([seed, n_clusters]), []
    group = np.repeat(np.arange(n_clusters), 4)
    names = np.arange(len(group)).astype(str)
    for draw in range(draws):
        # Model minus baseline in absolute error: sd 1 between clusters, so that its standard error is 1 / sqrt(n).
        gain = rng.normal(shift / np.sqrt(n_clusters), 1, n_clusters)[group] + 0.1 * rng.normal(size=len(group))
        systems = {"net": np.full((len(group), 1), 10.0), "base": (10.0 + gain)[:, None]}
        results = Results(names, group.astype(str), ("y",), np.zeros((len(group), 1)), systems, model="net")
        found.append(kind_of(results, "mae", draw))
    return found


CLUSTERS = [pytest.param(12, marks=pytest.mark.long), 30, pytest.param(100, marks=pytest.mark.long)]


@pytest.mark.parametrize("n_clusters", CLUSTERS)
def test_better_is_said_of_an_equal_in_at_most_one_draw_of_twenty(n_clusters: int) -> None:
    """1,000 draws of a model that is as good as the baseline: 2.5 % are expected."""
    better = np.mean([kind == "better" for kind in outcomes(n_clusters, 1000, 0.0, seed=1)])
    assert 0.002 < better <= 0.05


@pytest.mark.parametrize("n_clusters", CLUSTERS)
def test_better_is_said_of_a_difference_of_two_standard_errors_in_two_draws_of_five(n_clusters: int) -> None:
    assert np.mean([kind == "better" for kind in outcomes(n_clusters, 400, 2.0, seed=2)]) > 0.40


@pytest.mark.parametrize("n_clusters", CLUSTERS)
def test_a_copy_of_the_baseline_with_noise_is_not_called_better(n_clusters: int) -> None:
    """The null of the issue, on the primary metric itself: model = baseline + noise."""
    rng, better = np.random.default_rng(n_clusters), 0
    group = np.repeat(np.arange(n_clusters), 4)
    names = np.arange(len(group)).astype(str)
    for draw in range(1000):
        shared = rng.normal(size=n_clusters)[group]
        measured = shared + rng.normal(size=len(group))
        base = 0.5 * measured + rng.normal(size=len(group)) + 0.5 * rng.normal(size=n_clusters)[group]
        systems = {"net": (base + 0.3 * rng.normal(size=len(group)))[:, None], "base": base[:, None]}
        results = Results(names, group.astype(str), ("y",), measured[:, None], systems, model="net")
        better += kind_of(results, "pearson", draw) == "better"
    assert better <= 50
