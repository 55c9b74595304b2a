"""Metrics of the task ``cells``: closed forms, and the traps they were made for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from torchcell.cells.metrics import (
    CellsContext,
    centroid_accuracy,
    des,
    mse_top20,
    pds,
    pds_cosine,
    pearson_delta_perturbed,
)
from torchcell.evaluation.checks import spread
from torchcell.evaluation.evaluate import evaluate
from torchcell.evaluation.metrics import ProfileContext, Profiles, pearson_delta
from torchcell.evaluation.registry import metric, profile
from torchcell.evaluation.results import Results
from torchcell.io.errors import InputError

N, GENES = 30, 120


def noisy(n: int = N, noise: float = 0.5, seed: int = 0, **changes: np.ndarray) -> Profiles:
    """Conditions with an effect of their own and a shared one; two halves of controls; the first genes perturbed."""
    rng = np.random.default_rng(seed)
    control = rng.normal(2.0, 1.0, GENES)
    effect = rng.normal(0.0, 1.0, (n, GENES)) + rng.normal(0.0, 1.0, GENES)
    effect[np.arange(n), np.arange(n)] = -6.0
    halves = [control + np.zeros((n, 1)) + rng.normal(0.0, 0.2, GENES) for _ in range(2)]
    given = {
        "truth": control + effect,
        "prediction": control + effect + rng.normal(0.0, noise, (n, GENES)),
        "eval_control": halves[0],
        "center": (control + effect).mean(0) + rng.normal(0.0, 0.1, (n, GENES)),
        "input_control": halves[1],
        "significant": np.abs(effect) > 1.5,
        "own": np.arange(n),
    }
    return Profiles(
        given["truth"],
        changes.pop("prediction", given["prediction"]),
        CellsContext(**{key: value for key, value in (given | changes).items() if key not in ("truth", "prediction")}),
    )


def changed(profiles: Profiles, **changes: np.ndarray | None) -> Profiles:
    """The same with other arrays, of the profiles or of what they are taken against."""
    own = {key: changes.pop(key) for key in ("truth", "prediction") if key in changes}
    return replace(profiles, **own, context=replace(profiles.context, **changes))


def with_prediction(profiles: Profiles, prediction: np.ndarray) -> Profiles:
    return changed(profiles, **{"prediction": np.broadcast_to(prediction, profiles.truth.shape).copy()})


def arrays_of(profiles: Profiles) -> dict[str, np.ndarray]:
    """All arrays by name, those that changes are taken against too."""
    own = {"truth": profiles.truth, "prediction": profiles.prediction}
    return own | {name: value for name, value in vars(profiles.context).items() if value is not None}


OF_PROFILES = [one for one in profile("cells") if one.name != "e_distance"]
"""Without the one that needs cells, see ``test_cells_sets``."""


def test_a_perfect_prediction_has_the_best_value_of_every_metric() -> None:
    profiles = noisy(input_control=None)
    perfect = with_prediction(profiles, profiles.truth)
    perfect = changed(perfect, **{"significant": np.argsort(np.argsort(-np.abs(perfect.changes()[0]))) < 15})
    for one in OF_PROFILES:
        np.testing.assert_allclose(one.function(perfect), one.best, atol=1e-12, err_msg=one.name)


def test_a_fixed_prediction_has_the_no_skill_value_of_ranks() -> None:
    profiles = noisy(own=None)
    fixed = with_prediction(profiles, profiles.truth[3] + 1)
    expected = dict.fromkeys(("pds", "pds_cosine"), (N + 1) / (2 * N)) | {"centroid_accuracy": 0.5}
    for name, value in expected.items():
        one = metric(name, "cells")
        assert one.function(fixed).mean() == pytest.approx(value)
        assert one.no_skill_value(profiles.truth[:, 0]) == pytest.approx(value)


def test_a_constant_over_genes_scores_the_share_of_significant_genes() -> None:
    profiles = noisy()
    no_change = with_prediction(profiles, profiles.context.input_control)
    np.testing.assert_allclose(des(no_change), profiles.context.significant.mean(1))
    assert np.isnan(pearson_delta(no_change)).all()
    assert np.isnan(pds_cosine(no_change)).all()
    assert np.isfinite(pds(no_change)).all()


def test_the_training_mean_is_undefined_against_itself() -> None:
    profiles = noisy()
    assert (pearson_delta_perturbed(with_prediction(profiles, profiles.context.center)) == 0).all()
    assert pearson_delta_perturbed(profiles).min() > 0.7


def test_relabeling_and_reordering_change_nothing() -> None:
    rng = np.random.default_rng(1)
    context = np.array(["LINE1", "LINE2"])[rng.integers(0, 2, N)]
    own = np.column_stack([np.arange(N), rng.integers(-1, GENES, N)])
    profiles = noisy(own=own, rank_within=context, noise=3.0)
    rows, genes = rng.permutation(N), rng.permutation(GENES)
    place = np.append(np.argsort(genes), -1)
    moved = {
        name: value[rows][:, genes] for name, value in arrays_of(profiles).items() if np.shape(value) == (N, GENES)
    }
    renamed = np.array(["x", "y"])[(context == "LINE1").astype(int)]
    twin = changed(profiles, **moved, **{"own": place[own[rows]], "rank_within": renamed[rows]})
    for one in OF_PROFILES:
        np.testing.assert_allclose(one.function(twin), one.function(profiles)[rows], atol=1e-9, err_msg=one.name)


def test_ties_share_their_rank() -> None:
    profiles = noisy(n=4, own=None)
    truth = np.repeat(profiles.truth[:1], 4, axis=0)
    same = changed(profiles, **{"truth": truth})
    for one in (pds, pds_cosine):
        np.testing.assert_allclose(one(same), (4 + 1) / (2 * 4))
    np.testing.assert_allclose(centroid_accuracy(same), 0.5)


def test_the_perturbed_genes_are_left_out_where_they_would_give_the_answer_away() -> None:
    profiles = noisy()
    # Knows nothing but which gene is knocked down.
    guess = profiles.context.input_control.copy()
    guess[np.arange(N), np.arange(N)] -= 6.0
    blind = with_prediction(profiles, guess)
    leaky = changed(blind, **{"own": None})
    assert pds(leaky).mean() > 0.7
    np.testing.assert_array_equal(pds(blind), pds(with_prediction(blind, profiles.context.input_control)))
    assert np.isnan(pds_cosine(blind)).all()
    assert mse_top20(leaky).mean() < mse_top20(with_prediction(leaky, profiles.context.input_control)).mean()
    np.testing.assert_allclose(mse_top20(blind), mse_top20(with_prediction(blind, profiles.context.input_control)))


def test_leaving_out_only_ones_own_gene_lifts_even_no_change_above_a_fixed_vector() -> None:
    """Other conditions keep their strong knock-downs, one's own is gone: so the row no_change, not 0.5, is no skill."""
    strong = noisy()
    assert pds(with_prediction(strong, strong.context.input_control)).mean() > (N + 1) / (2 * N) + 0.08


def test_leaving_a_gene_out_equals_a_record_without_it() -> None:
    profiles = noisy(noise=3.0, own=np.full((N, 2), 7))  # a gene named twice is left out once
    shorter = {
        name: np.delete(value, 7, axis=1)
        for name, value in arrays_of(profiles).items()
        if np.shape(value) == (N, GENES)
    }
    without = changed(profiles, **shorter, **{"own": None})
    for one in (pds, pds_cosine, mse_top20):
        np.testing.assert_allclose(one(profiles), one(without), atol=1e-12)


def test_conditions_are_told_apart_within_their_context() -> None:
    profiles = noisy(noise=4.0)
    context = np.repeat(["A", "B"], N // 2)
    half = []
    for key in "AB":
        at = context == key
        parts = {name: value[at] for name, value in vars(profiles.context).items() if value is not None}
        half.append(changed(profiles, truth=profiles.truth[at], prediction=profiles.prediction[at], **parts))
    joined = changed(profiles, **{"rank_within": context})
    for one in (pds, pds_cosine, centroid_accuracy):
        np.testing.assert_allclose(one(joined), np.concatenate([one(each) for each in half]))
        assert not np.allclose(one(joined), one(profiles))
    fixed = metric("pds", "cells").no_skill_value(profiles.truth[:, 0], context)
    assert fixed == pytest.approx((N / 2 + 1) / N)
    alone = changed(profiles, **{"rank_within": np.arange(N).astype(str)})
    for one in (pds, pds_cosine, centroid_accuracy):
        assert np.isnan(one(alone)).all()


def test_an_empty_set_of_significant_genes_is_undefined() -> None:
    profiles = noisy()
    profiles.context.significant[4] = False
    found = des(profiles)
    assert np.isnan(found[4])
    assert np.isfinite(np.delete(found, 4)).all()
    assert np.isnan(des(noisy(significant=None))).all()


def test_shared_controls_make_noise_look_like_skill_and_halves_do_not() -> None:
    rng = np.random.default_rng(2)
    n, genes = 200, 300
    truth = rng.normal(0.0, 0.1, (n, genes))  # no effect at all
    fake = rng.normal(0.0, 0.1, (n, genes))
    one, two = (rng.normal(0.0, 0.3, genes) + np.zeros((n, 1)) for _ in range(2))
    assert pearson_delta(Profiles(truth, fake, ProfileContext(one))).mean() > 0.8
    assert abs(pearson_delta(Profiles(truth, fake, ProfileContext(one, two))).mean()) < 0.15


def test_a_condition_without_a_prediction_is_undefined_and_no_comparator() -> None:
    profiles = noisy(noise=3.0)
    prediction = profiles.prediction.copy()
    prediction[5] = np.nan
    found = with_prediction(profiles, prediction)
    for one in OF_PROFILES:
        values = one.function(found)
        assert np.isnan(values[5]), one.name
        assert np.isfinite(np.delete(values, 5)).all(), one.name


def results(**changes: object) -> Results:
    p, noise = noisy(), np.random.default_rng(3).normal(0.0, 0.1, (N, GENES))
    given = {
        "sample_id": np.array([f"g{i}|all" for i in range(N)]),
        "group": np.array([f"g{i}" for i in range(N)]),
        "outputs": tuple(f"G{i}" for i in range(GENES)),
        "measured": p.truth,
        "systems": {
            "model": p.prediction,
            "no_change": p.context.input_control,
            "fake": p.context.input_control + noise,
        },
        "task": "cells",
        "context": p.context,
    }
    own = {key: changes.pop(key) for key in list(changes) if hasattr(p.context, key) and key != "context"}
    given["context"] = replace(p.context, **own)
    return Results(**(given | changes))


def test_results_of_cells_get_one_row_a_metric_and_a_verdict() -> None:
    found = evaluate(results(), n_boot=50)
    model = found.table[found.table.system == "model"].set_index("metric")
    assert list(model.index) == [one.name for one in profile("cells")]
    assert np.isfinite(model.value.drop("e_distance")).all()
    verdict = found.verdict
    assert (verdict.kind, verdict.color, verdict.primary.metric) == ("better", "green", "pearson_delta_perturbed")
    assert [row.metric for row in verdict.calibration] == ["skill"]


def test_conditions_without_significant_genes_do_not_keep_a_metric_from_the_verdict() -> None:
    """39 of 60 conditions of Norman and McFaline have none: des was then compared with no baseline at all."""
    significant = noisy().context.significant.copy()
    significant[:20] = False
    verdict = evaluate(results(significant=significant), n_boot=50).verdict
    row = {row.metric: row for row in verdict.beside}["des"]
    assert (row.outcome, row.n_samples) == ("better", 10)


def test_the_training_mean_scores_0_on_what_is_centered_on_it_and_takes_part() -> None:
    """It was undefined and dropped out, so that no change became the best baseline and was easy to beat."""
    one = results()
    with_mean = replace(one, systems={**one.systems, "perturbed_mean": one.context.center})
    table = evaluate(with_mean, n_boot=20).table.query("system == 'perturbed_mean'").set_index("metric")
    assert table.value["pearson_delta_perturbed"] == 0
    assert table.value["skill"] == pytest.approx(0)
    assert table.n_undefined["pearson_delta_perturbed"] == 0


def test_the_spread_of_no_change_is_none_whichever_controls_truth_has() -> None:
    found = spread(results(), "no_change")
    assert found["over_samples"] == 0
    assert found["over_outputs"] == 0
    assert found["collapsed"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_control": np.zeros((N, 3))}, "input_control has shape"),
        ({"significant": np.zeros((3, GENES), bool)}, "significant has shape"),
        ({"own": np.zeros(3, int)}, "own has shape"),
        ({"own": np.full(N, GENES)}, "own holds a column"),
        ({"rank_within": np.array(["a"])}, "rank_within has shape"),
    ],
)
def test_what_does_not_fit_the_results_is_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        results(**change)
