"""Figures show the numbers they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from torchcell.evaluation.evaluate import evaluate
from torchcell.evaluation.results import Results
from torchcell.report.plots import (
    forest,
    learning_curves,
    loss_shares,
    predicted_against_measured,
    ranking_curves,
    residuals_by_set_size,
)

Make = Callable[..., Results]


def test_scatter_holds_every_covered_value_with_its_unit(make_results: Make) -> None:
    results = make_results()
    figure = predicted_against_measured(results, ["Net", "ridge"], units={"epsilon": "fitness"})
    model, other = figure.axes
    np.testing.assert_allclose(
        model.collections[0].get_offsets(), np.hstack([results.measured, results.systems["Net"]])
    )
    assert model.get_xlabel() == "measured epsilon [fitness]"
    assert "n = 120" in other.get_title("left")
    assert model.get_ylim() == other.get_ylim()


def test_many_values_become_a_density(make_results: Make) -> None:
    figure = predicted_against_measured(make_results(n=3000), ["Net"])
    counts = figure.axes[0].collections[0].get_array()
    assert counts.sum() == pytest.approx(3000, rel=0.01)


def test_a_silent_system_is_not_drawn(make_results: Make) -> None:
    assert len(predicted_against_measured(make_results(), ["Net", "silent"]).axes) == 1
    assert predicted_against_measured(make_results(), ["silent"]) is None


def test_residual_boxes_hold_the_median_of_each_size(make_results: Make) -> None:
    results = make_results()
    axes = residuals_by_set_size(results, ["Net"]).axes[0]
    residual = (results.systems["Net"] - results.measured)[:, 0]
    expected = [np.median(residual[results.set_size == size]) for size in (2, 3, 4)]
    drawn = [line.get_ydata()[0] for line in axes.lines if line.get_linewidth() == 1.4]
    np.testing.assert_allclose(drawn, expected)
    counts = [f"{size}\n(n = {(results.set_size == size).sum()})" for size in (2, 3, 4)]
    assert [label.get_text() for label in axes.get_xticklabels()] == counts


def test_large_sets_share_the_last_box(make_results: Make) -> None:
    axes = residuals_by_set_size(make_results(set_size=np.arange(120) % 12 + 1), ["Net"]).axes[0]
    assert axes.get_xticklabels()[-1].get_text() == "6+\n(n = 70)"


def test_curves_of_training_mark_the_best_epoch(history: pd.DataFrame) -> None:
    losses, scores = learning_curves(history.assign(**{"val/score": [0, 1, 5, 2, 1, 0, 0, 0, 0, 0]})).axes
    assert [line.get_label() for line in losses.lines[:2]] == ["train/loss", "val/loss"]
    assert scores.lines[0].get_label() == "val/epsilon/Pearson"
    assert scores.texts[0].get_text() == "best, epoch 2: 5.000"
    assert learning_curves(history[["epoch"]]) is None


def test_loss_shares_need_two_terms_and_an_epoch(history: pd.DataFrame) -> None:
    assert len(loss_shares(history).axes[0].collections) == 2
    assert loss_shares(history[:1]) is not None
    assert loss_shares(history.drop(columns="train/share/graph")) is None
    assert loss_shares(history[:0]) is None


def test_the_forest_has_every_system_and_says_undefined(make_results: Make) -> None:
    results = make_results()
    figure = forest(evaluate(results, n_boot=20), results)
    assert [axes.get_title("left") for axes in figure.axes] == ["pearson ↑", "spearman ↑", "r2 ↑", "mae ↓"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["twin", "silent", "ridge", "mean", "Net"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["undefined (120)", "undefined (120)"]


def test_a_hopeless_system_is_an_arrow_and_does_not_set_the_scale(make_results: Make) -> None:
    results = make_results()
    wild = replace(results, systems={**results.systems, "wild": results.systems["ridge"] + 100})
    axes = forest(evaluate(wild, n_boot=20), wild).axes[2]
    assert axes.get_xlim()[0] > -5
    assert any("◂" in text.get_text() for text in axes.texts)


def test_ranking_curves_need_both_classes(make_results: Make) -> None:
    results = make_results("binary")
    roc, _ = ranking_curves(results, ["Net", "ridge"]).axes
    assert {"Net", "ridge", "twin"} <= {line.get_label() for line in roc.lines}
    assert ranking_curves(replace(results, measured=np.zeros((120, 1))), ["Net"]) is None
    assert ranking_curves(make_results(), ["Net"]) is None
