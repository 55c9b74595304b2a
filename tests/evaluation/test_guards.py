"""Planted collapses, ruling loss terms and unfinished training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from torchcell.evaluation.checks import converged, loss_share_warnings, spread
from torchcell.evaluation.evaluate import evaluate
from torchcell.evaluation.metrics import ProfileContext
from torchcell.evaluation.results import Results

Make = Callable[..., Results]


def test_spread_is_the_ratio_of_standard_deviations(make_results: Make) -> None:
    results = make_results(net=0.5)
    found = spread(replace(results, systems={"net": 0.25 * results.measured + 7}))
    assert found["over_samples"] == pytest.approx(0.25)
    assert found["per_output"] == {"fitness": pytest.approx(0.25)}
    assert found["over_outputs"] is None
    assert not found["collapsed"]


@pytest.mark.parametrize(("scale", "collapsed"), [(0.0, True), (0.0128, True), (0.021, False)])
def test_collapse_is_called_below_two_hundredths_of_the_data(make_results: Make, scale: float, collapsed: bool) -> None:
    results = make_results(net=0.5)
    assert spread(replace(results, systems={"net": scale * results.measured}))["collapsed"] is collapsed


def test_one_dead_output_of_two_is_collapsed_and_named(make_results: Make) -> None:
    one = make_results(net=0.5)
    y = one.measured
    two = replace(one, outputs=("a", "b"), measured=np.hstack([y, y]), systems={"net": np.hstack([y, 0 * y])})
    found = spread(two)
    assert found["collapsed"]
    assert found["collapsed_outputs"] == ["b"]


def test_expression_that_never_leaves_the_reference_or_is_flat_over_genes_is_collapsed() -> None:
    rng = np.random.default_rng(0)
    reference = np.repeat(rng.normal(size=(1, 20)) * 5, 30, axis=0)
    measured = reference + rng.normal(size=(30, 20))
    results = Results(
        np.arange(30).astype(str), np.arange(30).astype(str), tuple(map(str, range(20))), measured,
        {"model": reference}, task="expression", context=ProfileContext(reference),
    )  # fmt: skip
    assert spread(results)["collapsed"]
    flat = np.repeat(rng.normal(size=(30, 1)), 20, axis=1) + reference
    found = spread(replace(results, systems={"model": flat}))
    assert found["over_samples"] > 0.5
    assert found["collapsed"]
    assert not spread(replace(results, systems={"model": 0.5 * (measured + reference)}))["collapsed"]


def test_genes_that_training_has_not_reached_are_no_collapse_of_those_it_has() -> None:
    """In a curriculum the best weights may be of an early phase: perfect on half of the genes came out collapsed."""
    rng = np.random.default_rng(0)
    reference = np.repeat(rng.normal(size=(1, 20)) * 5, 30, axis=0)
    measured = reference + rng.normal(size=(30, 20))
    active = np.arange(20) % 2 == 0
    results = Results(
        np.arange(30).astype(str), np.arange(30).astype(str), tuple(map(str, range(20))), measured,
        {"model": np.where(active, measured, reference), "none": reference}, task="expression", context=ProfileContext(reference),
    )  # fmt: skip
    assert spread(results)["collapsed"]
    found = spread(replace(results, active=active))
    assert not found["collapsed"]
    assert (found["active"], found["over_samples"], list(found["per_output"])) == (
        10,
        1.0,
        list(map(str, range(0, 20, 2))),
    )
    text = evaluate(replace(results, active=active), n_boot=20).verdict.text
    assert "collapsed" not in text
    assert "; its weights were trained on 10 of 20 outputs" in text
    dead = replace(results, active=active, systems={"model": np.where(active, reference, measured)})
    assert spread(dead)["collapsed"]


def test_uncovered_measurements_are_counted(make_results: Make) -> None:
    results = make_results(n=40, net=0.5)
    holes = results.systems["net"].copy()
    holes[:7] = np.nan
    assert spread(replace(results, systems={"net": holes}))["uncovered"] == 7


def test_a_ruling_loss_term_is_named_with_its_first_epoch() -> None:
    history = pd.DataFrame(
        {
            "epoch": [0, 1, 2, 3],
            "train/share/graph": [0.5, 0.95, 0.9999, 0.8],
            "train/share/phenotype": [0.5, 0.05, 0.0001, 0.2],
        }
    )
    (found,) = loss_share_warnings(history)
    assert (found["term"], found["n_epochs"], found["first_epoch"]) == ("graph", 2, 1)
    assert "'graph' is up to 100.0% of the total" in found["text"]
    assert loss_share_warnings(history.drop(columns="train/share/graph").assign(**{"train/share/phenotype": 1.0})) == []


@pytest.mark.parametrize(
    ("history", "done"),
    [
        ([0.1, 0.2, 0.3, 0.4], False),
        (list(np.linspace(0, 1, 40)), False),
        ([*np.linspace(0, 1, 30), *[1.0] * 10], True),
        ([*np.linspace(0, 1, 30), *np.linspace(1, 0.8, 10)], True),
        ([*[0.5] * 20, 0.5005], True),
        ([*[0.5] * 20, 0.502], False),
        ([*[0.5] * 20, *[np.nan] * 3], False),
        ([np.nan] * 20, False),
        ([0.5], False),
        ([], False),
    ],
)
def test_a_run_is_converged_once_the_last_tenth_no_longer_rises(history: list[float], done: bool) -> None:
    assert converged(history) is done


def test_a_loss_converges_downwards() -> None:
    assert not converged(list(np.linspace(1, 0, 20)), higher_is_better=False)
    assert converged(list(np.linspace(0, 1, 20)), higher_is_better=False)
