"""Metrics over the genes of a drug's response: closed forms, and the traps they were made for."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.drug_response.metrics import ResponseContext, pearson2_top, pearson_delta_plate, precision_top, r2_top
from torchcell.evaluation.evaluate import evaluate
from torchcell.evaluation.metrics import ProfileContext, Profiles, pearson_delta
from torchcell.evaluation.registry import profile
from torchcell.evaluation.results import Results
from torchcell.report.layout import blocks
from torchcell.report.sections import glossary

GENES = 300


def profiles_of(truth, prediction, control, replicate=None, center=None) -> Profiles:
    """Truth and prediction with what changes of treated samples are taken against."""
    return Profiles(truth, prediction, ResponseContext(control, center=center, replicate=replicate))


def noisy(n: int = 60, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two replicates that share an effect, a control, and the effect [n, G] each."""
    rng = np.random.default_rng(seed)
    effect = rng.normal(0.0, 1.0, (n, GENES))
    control = rng.normal(8.0, 1.0, (1, GENES)) + np.zeros((n, 1))
    one, two = (control + effect + rng.normal(0.0, noise, (n, GENES)) for _ in range(2))
    return one, two, control, effect


def test_a_perfect_prediction_has_the_best_value_of_every_metric() -> None:
    truth, _, control, effect = noisy(noise=0.0)
    profiles = profiles_of(truth, truth.copy(), control, effect, control - 0.5)
    for one in profile("response"):
        np.testing.assert_allclose(one.function(profiles), one.best, atol=1e-12, err_msg=one.name)


def test_no_change_is_undefined_as_a_change_and_has_chance_precision() -> None:
    truth, _, control, effect = noisy()
    profiles = profiles_of(truth, control.copy(), control, effect)
    assert np.isnan(pearson_delta(profiles)).all()
    assert np.isnan(pearson2_top(profiles, 20)).all()
    np.testing.assert_allclose(precision_top(profiles, 20, True), 100 / GENES)


def test_without_a_replicate_top_metrics_are_undefined_but_the_published_form_is_not() -> None:
    truth, guess, control, _ = noisy()
    profiles = profiles_of(truth, guess, control)
    for each in (pearson2_top(profiles, 20), r2_top(profiles, 20), precision_top(profiles, 20, False)):
        assert np.isnan(each).all()
    for published in (pearson2_top(profiles, 20, published=True), r2_top(profiles, 20, published=True)):
        assert np.isfinite(published).all()
    replicate = np.full_like(truth, np.nan)
    replicate[3] = guess[3] - control[3]
    held = ~np.isnan(pearson2_top(profiles_of(truth, guess, control, replicate), 20))
    assert held.sum() == 1
    assert held[3]


def test_the_published_form_is_shown_beside_the_constant_and_the_gene_mean_or_not_at_all() -> None:
    """With baselines=none it stood alone, a high score that a constant has too."""
    truth, guess, control, _ = noisy(8)
    names = np.arange(8).astype(str)
    systems = {"net": guess, "constant": np.full_like(truth, 8.0), "gene_mean": control}

    def shown(*left: str) -> set[str]:
        kept = {name: systems[name] for name in left}
        genes = tuple(f"g{i}" for i in range(GENES))
        found = evaluate(
            Results(names, names, genes, truth, kept, task="response", context=ProfileContext(control), model="net"), 5
        )
        (block,) = blocks(found)
        assert {one.name for one in block.metrics} < set(found.table.metric) == {name for name, _ in glossary(found)}
        assert "undefined for every system here: pearson_delta_plate, " in " ".join(block.footnotes)
        return {name for name in found.table.metric if name.endswith("_published")}

    forms = {f"{name}@{k}_published" for name in ("pearson2_de", "r2_top") for k in (20, 40, 80)}
    assert shown("net", "constant", "gene_mean") == forms
    assert shown("net") == shown("net", "constant") == shown("net", "gene_mean") == set()


def test_genes_chosen_by_their_own_noise_let_a_constant_beat_a_replicate() -> None:
    # Basal profiles that spread more than the effects, as real ones do: the change then holds the control's sign.
    rng = np.random.default_rng(1)
    truth_control = rng.normal(8.0, 1.0, (200, GENES))
    level = rng.normal(8.0, 0.4, GENES)
    one, two = (level + rng.normal(0.0, 1.0, (200, GENES)) for _ in range(2))
    input_control = rng.normal(8.0, 1.0, (200, GENES))
    constant = np.full_like(one, 8.0)
    replicate_change = two - input_control
    published = pearson2_top(profiles_of(one, constant, truth_control, replicate_change), 20, published=True)
    independent = pearson2_top(profiles_of(one, constant, truth_control, replicate_change), 20)
    assert published.mean() > 0.5
    assert independent.mean() < published.mean() - 0.1


def test_the_published_r2_is_that_of_scikit_learn_on_the_genes_that_changed_most_in_the_sample_itself() -> None:
    from sklearn.metrics import r2_score

    truth, guess, control, effect = noisy()
    found = r2_top(profiles_of(truth, guess, control, effect), 40, published=True)
    top = np.argsort(-np.abs(truth - control)[5])[:40]
    assert found[5] == pytest.approx(r2_score((truth - control)[5, top], (guess - control)[5, top]))
    (one,) = [each for each in profile("response") if each.name == "r2_top@40_published"]
    np.testing.assert_array_equal(one.function(profiles_of(truth, guess, control)), found)


def test_r2_of_the_top_genes_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import r2_score

    truth, guess, control, effect = noisy()
    got = r2_top(profiles_of(truth, guess, control, effect), 40)
    top = np.argsort(-np.abs(effect[5]))[:40]
    assert got[5] == pytest.approx(r2_score((truth - control)[5, top], (guess - control)[5, top]))


def test_the_plates_center_takes_away_what_its_samples_share() -> None:
    rng = np.random.default_rng(2)
    shared = rng.normal(0.0, 2.0, (1, GENES))
    truth = shared + rng.normal(0.0, 1.0, (50, GENES))
    control = rng.normal(0.0, 1.0, (50, GENES))
    guess = np.repeat(shared, 50, axis=0) + rng.normal(0.0, 0.1, (50, GENES))
    profiles = profiles_of(truth, guess, control, None, np.repeat(shared, 50, axis=0))
    assert pearson_delta(profiles).mean() > 0.7
    assert abs(pearson_delta_plate(profiles).mean()) < 0.03


def test_genes_that_are_missing_are_left_out_and_order_does_not_matter() -> None:
    truth, guess, control, effect = noisy(8)
    order = np.random.default_rng(0).permutation(GENES)
    profiles = profiles_of(truth, guess, control, effect, control + 1)
    moved = profiles_of(*(each[:, order] for each in (truth, guess, control, effect, control + 1)))
    for one in profile("response"):
        np.testing.assert_allclose(one.function(profiles), one.function(moved), atol=1e-10, err_msg=one.name)
    truth[:, 7] = np.nan
    shorter = profiles_of(*(np.delete(each, 7, axis=1) for each in (truth, guess, control, effect, control + 1)))
    np.testing.assert_allclose(pearson_delta(profiles), pearson_delta(shorter))
    np.testing.assert_allclose(pearson2_top(profiles, 20), pearson2_top(shorter, 20))


def test_a_constant_level_is_called_collapsed_though_its_change_from_the_control_spreads() -> None:
    from torchcell.evaluation.checks import spread
    from torchcell.evaluation.results import Results

    truth, guess, control, _ = noisy()
    control = control + np.random.default_rng(3).normal(0.0, 1.0, control.shape)
    names = np.arange(len(truth)).astype(str)
    systems = {
        "model": guess,
        "constant": np.full_like(truth, 8.0),
        "gene mean": np.tile(truth.mean(0), (len(truth), 1)),
    }
    results = Results(
        names, names, tuple(map(str, range(GENES))), truth, systems, task="response", context=ProfileContext(control)
    )
    assert not spread(results)["collapsed"]
    assert spread(results, "constant")["collapsed"]
    assert spread(results, "gene mean")["collapsed"]
