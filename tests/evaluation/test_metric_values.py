"""Each metric against scipy / scikit-learn, against repeated rows, and in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from torchcell.cells.task import TASK as CELLS
from torchcell.drug_response.task import TASK as DRUG_RESPONSE
from torchcell.evaluation.bootstrap import Weights
from torchcell.evaluation.metrics import ProfileContext, Profiles, pearson_delta
from torchcell.evaluation.registry import (
    BINARY,
    REGRESSION,
    MetricSet,
    higher_is_better,
    is_registered,
    learned_directions,
    metric,
    metric_set,
    register,
)
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.task import TASK as KNOWLEDGE_GRAPH
from torchcell.screen.task import TASK as SCREEN

OVER_SAMPLES = [(one.name, each.name) for each in (REGRESSION, BINARY) for one in each.metrics]


def _value(name: str, task: str, truth: np.ndarray, prediction: np.ndarray) -> float:
    return metric(name, task).function(truth, prediction, Weights.ones(len(truth)))[0]


def _data(task: str, seed: int = 0, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Truth and a prediction with many ties, far from 0 so that lost digits would show."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n).round(1)
    prediction = (0.5 * truth + rng.normal(size=n)).round(1)
    return (truth > 0.4).astype(float) if task == "binary" else truth + 100, prediction + 100


REFERENCE = {
    "pearson": lambda y, p: stats.pearsonr(y, p).statistic,
    "spearman": lambda y, p: stats.spearmanr(y, p).statistic,
    "r2": sk.r2_score,
    "mse": sk.mean_squared_error,
    "rmse": sk.root_mean_squared_error,
    "mae": sk.mean_absolute_error,
    "auroc": sk.roc_auc_score,
    "auprc": sk.average_precision_score,
    "brier": sk.brier_score_loss,
}


@pytest.mark.parametrize(("name", "task"), OVER_SAMPLES)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_reference_package_with_ties(name: str, task: str, seed: int) -> None:
    truth, prediction = _data(task, seed)
    if name == "brier":  # of probabilities; see below for scores that are none
        prediction = 1 / (1 + np.exp(-prediction))
    assert _value(name, task, truth, prediction) == pytest.approx(REFERENCE[name](truth, prediction), abs=1e-10)


@pytest.mark.parametrize(("name", "task"), [pair for pair in OVER_SAMPLES if pair[0] != "spearman"])
def test_integer_weights_equal_repeated_rows(name: str, task: str) -> None:
    truth, prediction = _data(task)
    count = np.random.default_rng(1).integers(0, 4, size=(5, len(truth))).astype(np.uint8)
    weighted = metric(name, task).function(truth, prediction, Weights(count, np.arange(len(truth))))
    repeated = [_value(name, task, np.repeat(truth, c), np.repeat(prediction, c)) for c in count]
    np.testing.assert_allclose(weighted, repeated, atol=1e-10)


def test_spearman_weights_keep_the_ranks_of_the_full_set() -> None:
    truth, prediction = _data("regression")
    count = np.random.default_rng(1).integers(0, 4, size=len(truth)).astype(np.uint8)
    weights = Weights(count[None], np.arange(len(truth)))
    ranks = [np.repeat(stats.rankdata(x), count) for x in (truth, prediction)]
    expected = stats.pearsonr(*ranks).statistic
    assert metric("spearman", "regression").function(truth, prediction, weights)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("name", "task"), OVER_SAMPLES)
def test_a_perfect_prediction_gives_the_best_value(name: str, task: str) -> None:
    truth, _ = _data(task)
    assert _value(name, task, truth, truth) == pytest.approx(metric(name, task).best, abs=1e-12)


@pytest.mark.parametrize(("name", "task"), OVER_SAMPLES)
def test_the_mean_gives_the_no_skill_value_or_is_undefined(name: str, task: str) -> None:
    truth, _ = _data(task)
    value = _value(name, task, truth, np.full_like(truth, truth.mean()))
    if name in ("pearson", "spearman"):
        assert np.isnan(value)
    else:
        assert value == pytest.approx(metric(name, task).no_skill_value(truth), abs=1e-12)


def test_no_skill_values_are_those_of_the_table() -> None:
    truth = np.array([0.0, 0, 0, 1, np.nan])
    assert metric("auroc", "binary").no_skill_value(truth) == 0.5
    assert metric("auprc", "binary").no_skill_value(truth) == 0.25
    assert metric("r2", "regression").no_skill_value(truth) == pytest.approx(0)
    assert metric("mse", "regression").no_skill_value(truth) == pytest.approx(0.1875)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_constant_but_for_float32_rounding_is_undefined(name: str) -> None:
    truth, _ = _data("regression")
    noise = np.random.default_rng(0).integers(-1, 2, len(truth)) * 2e-8
    assert np.isnan(_value(name, "regression", truth, 0.3 + noise))
    assert np.isfinite(_value(name, "regression", truth, 0.3 + 1e4 * noise))


@pytest.mark.parametrize("name", ["pearson", "spearman", "r2"])
def test_a_constant_truth_is_undefined(name: str) -> None:
    assert np.isnan(_value(name, "regression", np.full(9, 0.1), np.arange(9.0)))


@pytest.mark.parametrize("name", ["auroc", "auprc"])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_is_undefined(name: str, label: float) -> None:
    assert np.isnan(_value(name, "binary", np.full(9, label), np.arange(9.0)))


@pytest.mark.parametrize("name", ["pearson", "r2"])
def test_a_resample_that_repeats_one_value_is_undefined_and_the_data_stands(name: str) -> None:
    """Its variance is not 0 but what rounding leaves."""
    truth, prediction = _data("regression")
    count = np.vstack([np.ones(60), 7 * np.eye(60), np.zeros(60)]).astype(np.uint8)
    value = metric(name, "regression").function(truth, prediction + 0.1, Weights(count, np.arange(60)))
    assert np.isfinite(value[0])
    assert np.isnan(value[1:]).all()


def test_pearson_delta_in_closed_form() -> None:
    reference = np.array([[1.0, 2, 3, 4]] * 4)
    change = np.array([[1.0, -1, 2, 0]] * 4)
    prediction = reference + np.array([3 * change[0], -change[0], 0 * change[0], [1, -1, np.nan, 0]])
    value = pearson_delta(Profiles(reference + change, prediction, ProfileContext(reference)))
    np.testing.assert_allclose(value, [1, -1, np.nan, 1], atol=1e-12)
    assert np.isnan(pearson_delta(Profiles(reference, prediction, ProfileContext(reference)))).all()
    assert np.isnan(pearson_delta(Profiles(reference, prediction))).all()


@pytest.mark.parametrize("task", [SCREEN, DRUG_RESPONSE, CELLS, KNOWLEDGE_GRAPH], ids=lambda task: task.name)
def test_every_chosen_metric_is_in_its_set(task) -> None:
    for one in task.metrics:
        assert metric_set(one.name) is one
        names = [each.name for each in one.metrics]
        assert len(set(names)) == len(names)
        assert {*one.primary, *one.calibration, *one.beside} <= set(names)
        assert one.primary


def test_an_unknown_metric_names_its_neighbors() -> None:
    with pytest.raises(InputError, match="pearson"):
        metric("perason", "regression")
    with pytest.raises(InputError, match="no metrics for the task 'regresion'"):
        metric("pearson", "regresion")


def test_scores_that_are_no_probabilities_have_no_brier() -> None:
    rng = np.random.default_rng(0)
    truth, chance = rng.integers(0, 2, 60).astype(float), rng.random(60)
    assert _value("brier", "binary", truth, chance) > 0
    assert np.isnan(_value("brier", "binary", truth, 3 * chance))


def test_what_decides_a_verdict_is_never_replaced() -> None:
    """A package of a user's own could else score screens by a metric that flatters its model."""
    with pytest.raises(InputError, match="'regression' are registered already"):
        register(replace(REGRESSION, primary=("mae",)))
    turned = replace(next(one for one in REGRESSION.metrics if one.name == "mse"), higher_is_better=True)
    with pytest.raises(InputError, match="'mse' of another task have the other direction"):
        register(MetricSet("mine", (turned,), primary=("mse",), calibration=(), beside=()))
    assert register(REGRESSION) is REGRESSION
    assert not is_registered("mine")


def test_the_direction_of_a_metric_that_only_a_run_knows_is_learned_from_it() -> None:
    assert higher_is_better("planted_error")
    with learned_directions(["planted_error", "pearson"]):
        assert not higher_is_better("y/planted_error")
        assert higher_is_better("pearson"), "what is registered is known"
    assert higher_is_better("y/planted_error")
