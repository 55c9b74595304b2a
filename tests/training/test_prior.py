"""``model.prior=NAME``: a network beside a fitted baseline, whose residual it learns out of fold."""

from __future__ import annotations

from pathlib import Path

import anndata
import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.strategies.strategy import _ForwardRedirection
from omegaconf import OmegaConf

from tests.small_runs import SCREEN, composed
from torchcell.collect import collect
from torchcell.core.datamodule import RecordDataModule
from torchcell.core.predictor import Predictor
from torchcell.core.prior import FOLDS, out_of_fold
from torchcell.embed import embed
from torchcell.evaluate import evaluate
from torchcell.io.errors import InputError
from torchcell.predict import predict
from torchcell.train import Trained, train
from torchcell.training import build, checkpoint
from torchcell.training.entry import conf_dir
from torchcell.training.predict import predict_part, predict_without_inputs
from torchcell.training.prior import fit_prior

SMALL = (
    *SCREEN,
    "model.encoder.dim=16",
    "model.readout.heads=1",
    "+model.prior=additive_ridge",
    "trainer.max_epochs=2",
)


def small(*overrides: str) -> OmegaConf:
    cfg = composed(*SMALL, "evaluation.n_boot=20", *overrides)
    cfg.baselines = {"mean": cfg.baselines.mean, "additive_ridge": cfg.baselines.additive_ridge}
    return cfg


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return train(small(f"paths.runs={tmp_path_factory.mktemp('runs')}"))


@pytest.fixture(scope="module")
def data() -> RecordDataModule:
    return build.datamodule(small())


class Memory(Predictor):
    """Says of a sample what was measured of it, and nothing of others."""

    name = "memory"

    def fit(self, train, val, graph):
        self.known = dict(zip(train.sample_id.tolist(), train.target[:, 0].tolist(), strict=True))
        return self

    def predict(self, record):
        return np.array([[self.known.get(name, np.nan)] for name in record.sample_id.tolist()], dtype=np.float32)


@pytest.mark.parametrize("split", ["random", "query_disjoint", "gene_disjoint_any"])
def test_no_training_sample_meets_a_prior_that_was_fitted_to_it(split):
    data = build.datamodule(small(f"split={split}"))
    part = data.record("train")
    folds, n = list(data.inner_parts()), len(data.record_whole)
    assert len(folds) == FOLDS
    assert np.isnan(out_of_fold(Memory, folds, data.record("val"), None, (n, 1))).all()
    tested = np.unique(np.concatenate([one.at for one in folds]))
    np.testing.assert_array_equal(tested, data.split.index("train"), "and each is predicted")
    for one in folds:
        np.testing.assert_array_equal(data.sample_id[one.at], one.held_out.sample_id)
        assert set(one.train.sample_id) <= set(part.sample_id) - set(one.held_out.sample_id)


@pytest.mark.parametrize("split", ["query_disjoint", "gene_disjoint_any", "random"])
def test_a_split_from_a_file_is_split_again_by_what_it_holds_out(split, data, tmp_path):
    """Else the inner folds know the genes that they are asked for, and the prior is trusted too much."""
    build.datamodule(small(f"split={split}")).write(tmp_path)
    again = build.datamodule(small("split=file", f"split.file={tmp_path / 'split.parquet'}"))
    part = again.record("train")
    held_out = split != "random"
    assert again.split.holds_clusters_out == held_out
    folds = list(again.inner_folds(part))
    group = again.split.of(part.sample_id).group.reshape(len(part), -1)
    for fitted_on, held in folds:
        seen = np.isin(group[held], group[fitted_on]) | (group[held] == "")
        assert (~seen.all(1)).all() == held_out
    assert (np.sum([held for _, held in folds], axis=0) >= 1).all(), "and each is predicted"


def test_the_priors_of_validation_and_test_are_fitted_on_all_of_train(data):
    cfg = small()
    _, spec = fit_prior(data, cfg)
    whole = instantiate(cfg.baselines.additive_ridge).fit(data.record("train"), data.record("val"), data.graph)
    expected = whole.predict(data.record_whole.blind())
    found = data.packed.prior.numpy()
    for part in ("val", "test"):
        at = data.split.index(part)
        np.testing.assert_allclose(found[at], expected[at], atol=1e-6)
    at = data.split.index("train")
    left = data.record("train").target
    fit, honest = (np.corrcoef(left[:, 0], one[at, 0])[0, 1] for one in (expected, found))
    assert fit > honest + 0.01, "in sample it knows the noise"
    assert float(spec.scale) == pytest.approx(float(np.sqrt(((left - found[at]) ** 2).mean())), rel=1e-4)
    assert float(spec.center) == float(data.spec.center)


def test_a_prior_that_is_fitted_out_of_fold_is_not_fitted_again_for_each_fold(monkeypatch):
    """By the split's own method: pairs with a held-out query are predicted by experts that never saw one of its pairs."""
    cfg = small("split=query_disjoint", "model.prior=stack")
    stack = composed(
        *SCREEN, "baselines.stack.k=5", "baselines.stack.rank=8", "baselines.stack.n_iter=1"
    ).baselines.stack
    cfg.baselines = {"mean": cfg.baselines.mean, "stack": stack}
    data = build.datamodule(cfg)
    folds = []

    def counted(train):
        for fold in RecordDataModule.inner_folds(data, train):
            folds.append(fold)
            yield fold

    data.inner_folds = counted
    monkeypatch.setattr("torchcell.training.prior.out_of_fold", None)
    prior, spec = fit_prior(data, cfg)
    assert len(folds) == FOLDS
    inner = prior.predictor.out_of_fold()
    np.testing.assert_array_equal(data.packed.prior[data.split.index("train")].numpy(), inner)
    left = data.record("train").target - inner
    assert float(spec.scale) == pytest.approx(float(np.sqrt(np.nanmean(left**2))), rel=1e-4)


def test_folds_that_leave_nobody_to_fit_on_are_one_error_that_says_what_to_do(data):
    few = data.record("train").subset(np.arange(2))
    with pytest.raises(InputError, match=r"training part of 2 samples can't be split again .*baselines.stack=null"):
        list(data.inner_folds(few))


def test_averaged_the_network_trains_as_without_a_prior_and_both_count_where_it_is_scored(tmp_path):
    """Where the residual is mostly noise, a network that never met the prior is a second opinion."""
    runs = {}
    for use in ("average", "none"):
        keys = (f"paths.runs={tmp_path}", f"name={use}", "+model.prior_use=average")
        cfg = small(*(keys if use == "average" else keys[:2]))
        if use == "none":
            cfg.model.prior = None
        runs[use] = train(cfg)
    beside = runs["average"].model
    history = [pd.read_csv(one.folder.path / "history.csv")["train/loss"].to_list() for one in runs.values()]
    assert history[0] == history[1]
    predictions = pd.read_parquet(runs["average"].folder.path / "predictions.parquet")
    weights, mean = beside.stacking, float(beside.center)
    both = predictions["network_alone"] + float(weights.prior) * (predictions["additive_ridge"] - mean)
    np.testing.assert_allclose(predictions["Dango"], both, atol=1e-5)


def test_the_table_shows_the_prior_alone_the_network_alone_and_both(trained):
    table = pd.read_csv(trained.folder.path / "metrics.csv")
    rows = table[table["metric"] == "pearson"].set_index("system")["value"]
    assert {"Dango", "network_alone", "additive_ridge", "mean"} <= set(rows.index)
    predictions = pd.read_parquet(trained.folder.path / "predictions.parquet")
    weights, mean = trained.model.stacking, float(trained.model.center)
    both = mean + (predictions["network_alone"] - mean) + float(weights.prior) * (predictions["additive_ridge"] - mean)
    np.testing.assert_allclose(predictions["Dango"], both, atol=1e-5)
    history = pd.read_csv(trained.folder.path / "history.csv")
    assert {"val/weight/network", "val/weight/prior"} <= set(history.columns)
    assert rows["Dango"] > rows["mean"] if np.isfinite(rows["mean"]) else np.isfinite(rows["Dango"])


def test_collect_shows_the_network_alone_and_takes_it_for_no_baseline(trained):
    """It stands among the comparators of metrics.json, and no run of its own shows it."""
    table = collect([trained.folder.path])
    assert {"Dango", "network_alone", "additive_ridge"} <= set(table["system"])


def test_predict_and_evaluate_say_what_the_run_said(trained, tmp_path):
    ckpt, record = trained.folder.best, trained.datamodule.record("test")
    rows = pd.DataFrame({"sample_id": record.sample_id, "genes": ["|".join(genes) for genes in record.sets()]})
    rows.to_csv(tmp_path / "asked.csv", index=False)
    expected = pd.read_parquet(trained.folder.path / "predictions.parquet").set_index("sample_id")["Dango"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        keys = [f"ckpt={ckpt}", f"perturbations={tmp_path / 'asked.csv'}", f"out={tmp_path / 'out.csv'}"]
        table = predict(compose("predict", keys)).set_index("sample_id")
        scored = evaluate(compose("evaluate", [f"ckpt={ckpt}", f"out={tmp_path / 'scored'}"]))
        embed(compose("embed", [*keys[:2], f"out={tmp_path / 'latents.h5ad'}"]))
    outputs = list(trained.datamodule.spec.outputs)
    latents = anndata.read_h5ad(tmp_path / "latents.h5ad").obs
    predicted = latents.loc[record.sample_id, [name for name in latents if "predict" in name]]
    np.testing.assert_allclose(predicted.to_numpy()[:, 0], expected[record.sample_id], atol=1e-5)
    np.testing.assert_allclose(table.loc[record.sample_id, outputs[0]], expected[record.sample_id], atol=1e-5)
    np.testing.assert_allclose(scored.results.systems["Dango"][:, 0], expected[record.sample_id], atol=1e-5)


def test_the_prior_follows_an_input_that_is_shuffled(trained):
    """Else the check of the input would say that what the prior reads is not used."""
    packed, index = trained.datamodule.packed, np.arange(20)
    at = torch.from_numpy(index)
    twin = packed.exchanged(at, at.flip(0))
    assert torch.equal(twin[at].prior, packed[at.flip(0)].prior)
    assert torch.equal(packed[at].narrow(3, 9).prior, packed[at].prior[3:9])


def test_it_is_seen_whether_the_network_beside_the_prior_reads_the_input(trained):
    """The prior reads it in any case, so the check of both says nothing of the network."""
    checks = trained.scored.summary["checks"]
    assert checks["perturbation_shuffled"]["decides"] is True
    assert checks["network_perturbation_shuffled"]["decides"] is False
    model, data = trained.model, trained.datamodule
    weight = model.stacking.network.clone()
    trainer = lightning.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    try:
        model.stacking.network.zero_()
        found = predict_without_inputs(trainer, model, data, "test", 0)
        plain = predict_part(trainer, model, data, "test")
    finally:
        model.stacking.network.copy_(weight)
    for prediction in found["network_perturbation_shuffled"]:
        np.testing.assert_array_equal(prediction, plain)
    assert not np.array_equal(found["perturbation_shuffled"][0], plain)


def test_a_step_that_takes_the_place_of_forward_is_no_prediction(trained):
    """DDP calls the module with a step in place of its forward; the prior was added to what the step returned."""
    batch = trained.datamodule.packed[torch.arange(8)]
    sample, prediction = _ForwardRedirection()(trained.model, trained.model, "predict_step", batch, 0)
    assert torch.equal(sample, batch.sample)
    with torch.no_grad():
        assert torch.equal(prediction, trained.model.predict_step(batch)[1])


def test_a_checkpoint_holds_plain_values_only_and_knows_its_prior(trained):
    saved = checkpoint.load(trained.folder.best)
    prior = saved.prior()
    record = trained.datamodule.record("test")
    expected = trained.datamodule.prior.predict(record)
    assert prior.predict(record).numpy().tobytes() == expected.numpy().tobytes()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("model.prior=ridge",),
            "model.prior=ridge: no baseline of these data has this name; there are mean, additive_ridge",
        ),
        (("+model.prior_use=never",), "model.prior_use=never: choose one of residual, average"),
        (("data.record.task=binary",), "puts no prior into its batches"),
    ],
)
def test_what_can_be_no_prior_is_refused(overrides, said, tmp_path):
    cfg = small(f"paths.runs={tmp_path}", *overrides) if "prior" in overrides[0] else small()
    data = build.datamodule(cfg)
    if "task" in overrides[0]:
        data.takes_prior = False
    with pytest.raises(InputError, match=said):
        fit_prior(data, cfg)
    assert not list(Path(tmp_path).iterdir())


def test_a_run_that_scores_no_baseline_has_its_prior_all_the_same(tmp_path):
    """``baselines=none`` is for the trials of a search, whose model is the one that is trained in the end."""
    cfg = small(f"paths.runs={tmp_path}", "trainer.max_epochs=1")
    cfg.baselines = {}
    run = train(cfg)
    assert run.datamodule.prior.name == "additive_ridge"
    record = run.datamodule.record("test")
    expected = run.datamodule.prior.predict(record)
    assert torch.equal(checkpoint.load(run.folder.best).prior().predict(record), expected)
