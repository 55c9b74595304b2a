"""``model=stack`` and ``model.residual``: the prior as a run's model, and a network on its columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tests.small_runs import SCREEN, composed
from torchcell.io.errors import InputError
from torchcell.predict import predict
from torchcell.train import Trained, train
from torchcell.training import build
from torchcell.training.entry import conf_dir
from torchcell.training.prior import fit_prior
from torchcell.training.score import _own_baseline

SMALL = (*SCREEN, "split=query_disjoint", "evaluation.n_boot=20", "baselines.stack.k=5", "baselines.stack.rank=8")


def small(*overrides: str) -> DictConfig:
    cfg = composed(*SMALL, "baselines.stack.n_iter=1", *overrides)
    cfg.baselines = {name: cfg.baselines[name] for name in ("mean", "additive_ridge", "stack")}
    return cfg


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Trained:
    return train(small("model=stack", f"paths.runs={tmp_path_factory.mktemp('runs')}"))


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Trained:
    runs = f"paths.runs={tmp_path_factory.mktemp('runs')}"
    return train(small("model=stack_network", "model.residual.hidden=[8]", "trainer.max_epochs=3", runs))


def test_the_stack_as_a_model_says_what_it_says_as_a_baseline_and_is_not_its_own_rival(alone, network):
    table = pd.read_csv(alone.folder.path / "metrics.csv")
    assert {"PriorAlone", "mean", "additive_ridge"} <= set(table["system"])
    assert not {"stack", "network_alone"} & set(table["system"])
    assert "the baseline stack is the model itself" in alone.scored.summary["verdict"]["text"]
    beside = pd.read_parquet(network.folder.path / "predictions.parquet").set_index("sample_id")["stack"]
    own = pd.read_parquet(alone.folder.path / "predictions.parquet").set_index("sample_id")["PriorAlone"]
    np.testing.assert_allclose(own, beside[own.index], atol=1e-6)
    assert len(pd.read_csv(alone.folder.path / "history.csv")) == 1
    assert "not converged" not in alone.scored.summary["verdict"]["text"]


def test_a_network_on_the_columns_moves_the_stacks_prediction_and_is_compared_with_it(network):
    table = pd.read_csv(network.folder.path / "metrics.csv")
    assert {"PriorAlone", "stack", "network_alone"} <= set(table["system"])
    predictions = pd.read_parquet(network.folder.path / "predictions.parquet")
    assert np.abs(predictions["PriorAlone"] - predictions["stack"]).max() > 1e-4
    checks = network.scored.summary["checks"]
    assert checks["network_perturbation_shuffled"]["correlation"] < 1.0, "its columns are shuffled with the samples"


@pytest.mark.parametrize("run", ["alone", "network"])
def test_predict_says_what_the_run_said(run, request, tmp_path):
    trained = request.getfixturevalue(run)
    record = trained.datamodule.record("test")
    rows = pd.DataFrame({"sample_id": record.sample_id, "genes": ["|".join(genes) for genes in record.sets()]})
    rows.to_csv(tmp_path / "asked.csv", index=False)
    keys = [f"ckpt={trained.folder.best}", f"perturbations={tmp_path / 'asked.csv'}", f"out={tmp_path / 'out.csv'}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        table = predict(compose("predict", keys)).set_index("sample_id")
    expected = pd.read_parquet(trained.folder.path / "predictions.parquet").set_index("sample_id")["PriorAlone"]
    found = table.loc[record.sample_id, trained.datamodule.spec.outputs[0]]
    np.testing.assert_allclose(found, expected[record.sample_id], atol=1e-5)


def test_a_model_that_only_says_it_is_its_prior_is_compared_with_it(network, monkeypatch):
    """It would be spared the strongest baseline, and the check that its training has ended."""
    model, data = network.model, network.datamodule
    own = np.array(data.packed.prior[data.split.index("test")][:, :1])
    monkeypatch.setattr(type(model), "is_prior_alone", True)
    assert _own_baseline(model, data, "test", own) == "stack"
    assert _own_baseline(model, data, "test", own + 0.1) is None
    monkeypatch.setattr(type(model), "is_prior_alone", False)
    assert _own_baseline(model, data, "test", own) is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("model=stack_network", "model.prior=additive_ridge"), "the prior additive_ridge is not made of columns"),
        (("model=stack_network", "model.prior=null"), "model.residual needs a prior, whose columns it reads"),
        (("model=stack_network", "model.prior_use=average"), "model.residual needs model.prior_use=residual"),
    ],
)
def test_what_a_residual_needs_is_said(overrides, said):
    cfg = small(*overrides)
    with pytest.raises(InputError, match=said):
        fit_prior(build.datamodule(cfg), cfg)
