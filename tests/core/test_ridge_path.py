from __future__ import annotations

import numpy as np
import pytest

from torchcell.core.predictor import RidgePath


@pytest.mark.parametrize(("n", "features"), [(30, 8), (8, 30), (12, 12)])
@pytest.mark.parametrize("alpha", [0.01, 3.0])
def test_it_equals_the_normal_equations(n, features, alpha):
    rng = np.random.default_rng(0)
    x, y, new = rng.normal(size=(n, features)), rng.normal(2.0, 1.0, size=(n, 3)), rng.normal(size=(5, features))
    a = x - x.mean(0)
    penalty = alpha * np.square(a).sum(1).mean()
    w = np.linalg.solve(a.T @ a + penalty * np.eye(features), a.T @ (y - y.mean(0)))
    expected = y.mean(0) + (new - x.mean(0)) @ w
    path = RidgePath(x, y)
    assert path.dual == (n <= features)
    np.testing.assert_allclose(path.predict(new, alpha), expected, atol=1e-9)


def test_the_penalty_is_counted_in_samples_whatever_the_units():
    rng = np.random.default_rng(1)
    x, y, new = rng.normal(size=(20, 5)), rng.normal(size=(20, 2)), rng.normal(size=(4, 5))
    np.testing.assert_allclose(RidgePath(1e3 * x, y).predict(1e3 * new, 2.0), RidgePath(x, y).predict(new, 2.0))


def test_features_that_never_vary_leave_the_mean():
    y = np.arange(6.0)[:, None]
    for shape in ((6, 2), (6, 9)):
        np.testing.assert_allclose(RidgePath(np.ones(shape), y).predict(np.zeros((1, shape[1])), 1.0), [[2.5]])


def test_the_best_penalty_is_chosen_and_the_strongest_of_equals():
    rng = np.random.default_rng(2)
    path = RidgePath(rng.normal(size=(20, 5)), rng.normal(size=(20, 2)))
    new = rng.normal(size=(4, 5))
    wanted = path.predict(new, 3.0)
    assert path.choose(new, (0.1, 3.0, 30.0), lambda found: -np.abs(found - wanted).sum()) == 3.0
    assert path.choose(new, (0.1, 3.0, 30.0), lambda found: 0.0) == 30.0
