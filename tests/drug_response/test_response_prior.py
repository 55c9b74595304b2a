"""A Gaussian process beside a network of drug response: averaged, out of fold, followed by every way to predict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from small_runs import MODELS, composed
from test_response_runs import configured, request_of

from torchcell.core.batch import EVALUATION_ONLY
from torchcell.drug_response.datamodule import INPUTS
from torchcell.drug_response.record import Response
from torchcell.evaluate import evaluate
from torchcell.io.errors import InputError
from torchcell.predict import predict
from torchcell.train import Trained, train
from torchcell.training import build
from torchcell.training.prior import fit_prior

RUN = (
    *MODELS["response_product"], "trainer.max_epochs=2", "trainer.warmup_steps=2", "evaluation.n_boot=20",
    "data.record.n_replicates=2", "evaluation.umap=false", "baselines=none",
    "+baselines.gaussian_process._target_=torchcell.drug_response.baselines_fitted.GaussianProcess",
    "+baselines.constant._target_=torchcell.drug_response.baselines.Constant",
)  # fmt: skip


def run(folder: Path, *overrides: str) -> Trained:
    return train(composed(*RUN, f"paths.runs={folder}", *overrides))


@pytest.fixture(scope="module")
def averaged(tmp_path_factory) -> Trained:
    return run(tmp_path_factory.mktemp("averaged"))


@pytest.fixture(scope="module")
def residual(tmp_path_factory) -> Trained:
    return run(tmp_path_factory.mktemp("residual"), "model.prior_use=residual")


@pytest.fixture(params=["averaged", "residual"])
def trained(request) -> Trained:
    return request.getfixturevalue(request.param)


def start_of(trained: Trained, part: str = "test") -> np.ndarray:
    """The control, changed as the cell line on average over the training samples."""
    data = trained.datamodule
    record, train = data.record(part), data.record("train")
    change = (train.treated - train.control).astype(np.float64)
    mean = {line: change[train.cell_line == line].mean(0) for line in np.unique(train.cell_line)}
    return record.control + np.stack([mean[line] for line in record.cell_line])


def test_a_prediction_is_the_start_and_the_weighed_departures_of_network_and_prior(trained):
    systems, weights, start = trained.scored.results.systems, trained.model.stacking, start_of(trained)
    assert float(weights.prior) > 0
    network, prior = systems["network_alone"] - start, systems["gaussian_process"] - start
    expected = start + network + float(weights.prior) * prior  # the row is what the network adds, weighed
    np.testing.assert_allclose(systems["ResponseMLP"], expected, atol=1e-4)
    with torch.no_grad():
        model = trained.model.eval()
        batch = trained.datamodule.packed[torch.from_numpy(trained.datamodule.split.index("test"))].blind()
        raw = model.forward(batch).numpy() - start
    np.testing.assert_allclose(network, float(weights.network) * raw, atol=1e-4)


def test_where_the_plate_is_known_the_prior_and_the_network_know_it_too(trained):
    results = trained.scored.evaluation.results
    assert [one.level for one in results] == ["", "condition", "plate_known"]
    for name in ("ResponseMLP", "network_alone", "gaussian_process"):
        assert np.abs(results[0].systems[name] - results[2].systems[name]).mean() > 0.01, name


def test_predict_answers_as_the_run_was_scored(trained, tmp_path):
    asked = request_of(trained.datamodule.record("test"), tmp_path / "asked.h5ad")
    given = [f"ckpt={trained.folder.best}", f"perturbations={asked}", f"out={tmp_path / 'out.h5ad'}"]
    predict(configured("predict", given))
    answer, scored = anndata.read_h5ad(tmp_path / "out.h5ad").X, trained.scored.results.systems["ResponseMLP"]
    np.testing.assert_allclose(answer, scored, rtol=1e-5, atol=1e-5)


def test_evaluate_scores_as_the_run_did(averaged, tmp_path):
    given = [f"ckpt={averaged.folder.best}", "n_boot=20", f"out={tmp_path / 'again'}"]
    again = evaluate(configured("evaluate", given))
    pd.testing.assert_frame_equal(again.evaluation.table, averaged.scored.evaluation.table)


@pytest.mark.parametrize("name", ["drug", "dose", "line", "drug_with_dose", "basal"])
def test_the_prior_follows_an_input_that_is_shuffled_or_made_one(averaged, name):
    """Else the check of the input would say that what the prior reads is not used."""
    data, index = averaged.datamodule, torch.from_numpy(averaged.datamodule.split.index("test"))
    before = data.packed.prior.clone()
    twins = [data.shuffled(name, index, torch.Generator().manual_seed(0)), data.constant(name, index)]
    for twin in [one for one in twins if one is not None]:
        assert torch.equal(data.packed.prior, before)
        assert torch.equal(twin[index].prior, twin.prior[index])
        record: Response = data.record("test").as_request()
        if name in ("drug", "drug_with_dose"):
            record = replace(record, drug=np.array(data.spec.molecules.id)[twin.drug[index].numpy()])
        if name in ("dose", "drug_with_dose"):
            record = replace(record, dose_value=10.0 ** twin.log_dose[index].numpy().astype(float))
        if name == "line":
            record = replace(record, cell_line=np.array(data.spec.lines)[twin.line[index].numpy()])
        torch.testing.assert_close(twin.prior[index], data.prior.predict(record), atol=1e-4, rtol=1e-4)
        assert (name == "basal") == torch.equal(twin.prior[index], before[index])
    assert set(INPUTS) == {"drug", "basal", "dose", "line"}


def test_out_of_fold_no_training_sample_meets_a_prior_that_knows_its_drug():
    cfg = composed(*RUN, "model.prior_use=residual")
    data = build.datamodule(cfg)
    _, spec = fit_prior(data, cfg)
    index, record = data.split.index("train"), data.record("train")
    fitted = data.prior.predict(record).numpy()
    honest = data.known.prior[torch.from_numpy(index)].numpy()
    errors = [np.square(one - record.treated).mean() for one in (fitted, honest)]
    assert errors[0] < errors[1], "in sample it knows the noise"
    left = np.sqrt(np.square(honest - record.treated).mean(0))
    np.testing.assert_allclose(spec.change_scale.numpy(), left, rtol=1e-3)


def test_the_stack_is_a_prior_whose_own_out_of_fold_predictions_are_learned_from():
    stack = "+baselines.stack._target_=torchcell.drug_response.stack.Stack"
    cfg = composed(*RUN, stack, "+baselines.stack.weighed=40", "model.prior=stack", "model.prior_use=residual")
    data = build.datamodule(cfg)
    _, spec = fit_prior(data, cfg)
    honest = data.known.prior[torch.from_numpy(data.split.index("train"))].numpy()
    predictor = data.prior.predictor
    assert honest.tobytes() == predictor.out_of_fold().tobytes()
    left = np.sqrt(np.square(honest - data.record("train").treated).mean(0))
    np.testing.assert_allclose(spec.change_scale.numpy(), left, rtol=1e-3)


def test_a_prior_is_an_input_and_held_once(averaged):
    data = averaged.datamodule
    batch = next(iter(data.test_dataloader()))
    assert batch.prior.dtype == torch.float32
    assert torch.equal(batch.blind().narrow(1, 3).to("cpu").prior, batch.prior[1:3])
    assert not batch.__dataclass_fields__["prior"].metadata.get(*EVALUATION_ONLY)
    assert data.packed.prior is data.known.prior
    n, genes = data.packed.prior.shape
    saved = torch.load(averaged.folder.best, weights_only=True)
    sizes = [one.shape for one in saved["state_dict"].values()]
    assert (n, genes) not in sizes


def test_a_head_that_was_a_prior_names_the_keys_of_today(tmp_path):
    with pytest.raises(InputError, match="model.prior=gaussian_process model.prior_use=average"):
        run(tmp_path, "model.head=process")


def test_an_unknown_prior_is_an_error_that_says_how_to_go_on(tmp_path):
    with pytest.raises(InputError, match="no baseline of these data has this name.*gaussian_process.*model.prior=null"):
        run(tmp_path, "model.prior=gaussian_proces")
