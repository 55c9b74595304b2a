"""The ceiling scores what the noiseless truth scores."""

from __future__ import annotations

import numpy as np
import pytest

from tests.screen.planted import screen
from torchcell.screen.baselines import replicate_ceiling
from torchcell.screen.record import Screen


def replicated(
    signal: float, noise: float, n_replicates: int, n: int = 20000, seed: int = 0
) -> tuple[Screen, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = signal * rng.normal(size=n)
    values = (3.0 + truth[:, None] + noise * rng.normal(size=(n, n_replicates)))[:, :, None].astype(np.float32)
    record = screen([(i,) for i in range(n)], values.mean(1), n, replicates=values)
    return record, 3.0 + truth


def scores(prediction: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    return float(np.corrcoef(prediction, y)[0, 1]), float(
        1 - ((y - prediction) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    )


@pytest.mark.parametrize("n_replicates", [2, 3, 5])
@pytest.mark.parametrize("noise", [0.2, 1.0, 3.0])
def test_pearson_and_r2_are_those_of_the_noiseless_phenotype(noise: float, n_replicates: int) -> None:
    record, truth = replicated(1.0, noise, n_replicates)
    y = record.phenotype[:, 0]
    np.testing.assert_allclose(scores(replicate_ceiling(record)[:, 0], y), scores(truth, y), atol=0.02)


def test_pure_noise_has_no_ceiling_to_speak_of() -> None:
    record, _ = replicated(0.0, 1.0, 2)
    prediction = replicate_ceiling(record)[:, 0]
    half = record.replicates[:, 0, 0]
    assert np.corrcoef(half, record.phenotype[:, 0])[0, 1] > 0.6  # what half against all would claim
    assert np.ptp(prediction) == 0 or abs(np.corrcoef(prediction, record.phenotype[:, 0])[0, 1]) < 0.2


def test_a_sample_with_one_replicate_has_no_prediction() -> None:
    record, _ = replicated(1.0, 0.5, 3, n=50)
    record.replicates[4, 1:] = np.nan
    prediction = replicate_ceiling(record)
    assert np.isnan(prediction[4]).all()
    assert np.isfinite(np.delete(prediction, 4, axis=0)).all()


def test_without_replicates_there_is_no_ceiling() -> None:
    assert replicate_ceiling(screen([(0,), (1,)], np.array([1.0, 2.0]), 2)) is None
