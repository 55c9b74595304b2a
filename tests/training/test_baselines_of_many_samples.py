"""A baseline that would take hours is fitted to a part of the training samples, and this is said."""

from __future__ import annotations

import numpy as np
import pytest
from omegaconf import OmegaConf

from torchcell.core.datamodule import drawn
from torchcell.core.prior import Prior
from torchcell.screen.baselines import Mean
from torchcell.screen.datamodule import PerturbationDataModule
from torchcell.training import baselines
from torchcell.training.baselines import fit_baselines

CONFIGS = {"mean": OmegaConf.create({"_target_": "torchcell.screen.baselines.Mean"})}


@pytest.fixture
def data(pairs, data_folder) -> PerturbationDataModule:
    return PerturbationDataModule(pairs, {"method": "random", "n_folds": 5, "fold": 0, "seed": 0})


def mean_of(data: PerturbationDataModule, most: int | None) -> np.float32:
    return np.float32(drawn(data.record("train"), most, {"seed": 0}).phenotype.mean(dtype=np.float64))


def test_a_part_is_drawn_by_chance_and_said_and_kept_apart_from_all(data, monkeypatch, capsys):
    whole = fit_baselines(data, CONFIGS, "test")
    assert whole.notes == ()
    assert whole.predictions[""]["mean"][0, 0] == mean_of(data, None)
    monkeypatch.setattr(Mean, "most_samples", 100)
    monkeypatch.setattr(baselines, "MANY", 50)
    for said in ("on 100 samples (baselines.mean=null leaves it out)", ""):  # the second time it is in the cache
        fitted = fit_baselines(data, CONFIGS, "test")
        n = len(data.split.index("train"))
        assert fitted.notes == (f"mean was fitted to 100 of the {n} training samples, drawn by chance",)
        assert fitted.predictions[""]["mean"][0, 0] == mean_of(data, 100) != mean_of(data, None)
        assert said in capsys.readouterr().err
    monkeypatch.setattr(Mean, "most_samples", n)
    assert fit_baselines(data, CONFIGS, "test").notes == (), "all of them are no part"


def test_the_baseline_that_is_the_models_prior_is_fitted_to_all_samples_as_the_prior_is(data, monkeypatch):
    """A prior of all samples beside its own baseline of a part would make a model look better by their difference."""
    monkeypatch.setattr(Mean, "most_samples", 100)
    prior = Prior("mean", Mean().fit(data.record("train"), data.record("val"), None))
    data.use_prior(prior, data.predicted_by(prior))
    fitted = fit_baselines(data, CONFIGS, "test")
    assert fitted.notes == ()
    assert fitted.predictions[""]["mean"][0, 0] == mean_of(data, None) != mean_of(data, 100)
