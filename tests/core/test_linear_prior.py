"""A ridge or logistic regression on named columns."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from torchcell.core.linear_prior import fit_linear

N, F = 300, 6
NAMES = ["a: one", "a: two", "b: one", "b: two", "c: constant", "c: far"]


@pytest.fixture
def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, F)).astype(np.float32) * np.array([1, 100, 1, 1, 0, 1], np.float32) + 3
    y = (x[:, 0] + x[:, 1] / 100 + 0.1 * rng.normal(size=N)).astype(np.float32)
    return x, y, np.arange(N) % 4


def standardized(x: np.ndarray, of: np.ndarray) -> np.ndarray:
    scale = of.std(0)
    scale[scale == 0] = np.inf
    return np.clip((x - of.mean(0)) / scale, -6, 6)


def test_it_is_the_ridge_on_standardized_columns(problem):
    x, y, fold = problem
    prior, _ = fit_linear(NAMES, x, y, fold, (x[:50], y[:50]), [30.0], False)
    expected = Ridge(alpha=30.0).fit(standardized(x, x), y)
    np.testing.assert_allclose(prior.weight_F, expected.coef_, atol=1e-5)
    np.testing.assert_allclose(prior.predict(x), expected.predict(standardized(x, x)), atol=1e-5)
    assert prior.weight_F[4] == 0
    spread = dict(zip(prior.sources, prior.spread_S.tolist(), strict=True))
    assert spread["a"] > 10 * spread["b"]
    part = standardized(x, x)[:, :2] @ expected.coef_[:2]
    assert spread["a"] == pytest.approx(part.std(), rel=1e-3)


def test_training_samples_are_predicted_by_the_other_folds(problem):
    x, y, fold = problem
    prior, inner = fit_linear(NAMES, x, y, fold, (x[:50], y[:50]), [30.0], False)
    rows = fold != 2
    expected = Ridge(alpha=30.0).fit(standardized(x[rows], x), y[rows])
    np.testing.assert_allclose(inner[~rows], expected.predict(standardized(x[~rows], x)), atol=1e-5)
    assert not np.allclose(inner[~rows], prior.predict(x[~rows]), atol=1e-6)


def test_validation_chooses_the_penalty_and_a_far_column_is_clipped(problem):
    x, y, fold = problem
    noise = np.random.default_rng(1).permutation(y)
    assert fit_linear(NAMES, x, y, fold, (x, y), [0.1, 1e5], False)[0].penalty == 0.1
    assert fit_linear(NAMES, x, noise, fold, (x[::-1], noise), [0.1, 1e5], False)[0].penalty == 1e5
    missing = np.full(50, np.nan)
    assert fit_linear(NAMES, x, y, fold, (x[:50], missing), [0.1, 1e5], False)[0].penalty == 1e5
    prior, _ = fit_linear(NAMES, x, y, fold, (x, y), [1.0], False)
    far = np.repeat(x[:1], 2, 0)
    far[:, 0] = [1e4, 1e6]
    assert prior.predict(far)[0] == prior.predict(far)[1]


def test_a_binary_task_has_probabilities(problem):
    x, y, fold = problem
    label = (y > np.median(y)).astype(np.float32)
    prior, inner = fit_linear(NAMES, x, label, fold, (x, label), [10.0], True)
    z = standardized(x, x)
    expected = LogisticRegression(C=0.1).fit(z, label).predict_proba(z)[:, 1]
    np.testing.assert_allclose(prior.predict(x), expected, atol=1e-3)
    assert np.isfinite(inner).all()
    one = fit_linear(NAMES, x, np.ones(N, np.float32), fold, (x, label), [10.0], True)[0]
    np.testing.assert_allclose(one.predict(x), 1, atol=1e-6)
