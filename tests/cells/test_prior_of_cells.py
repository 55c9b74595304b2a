"""``model.prior=additive`` of single cells: batches, shuffles, training, ``predict``, ``evaluate``, ``embed``."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from tests.small_runs import MODELS, composed
from tests.test_predict_cells import Saved, counts
from torchcell.cells.datamodule import CellSetDataModule
from torchcell.core.datamodule import RecordDataModule
from torchcell.embed import embed
from torchcell.evaluate import evaluate
from torchcell.predict import predict
from torchcell.train import Trained, train
from torchcell.training import build, checkpoint
from torchcell.training.entry import conf_dir
from torchcell.training.prior import fit_prior

PRIOR = (*MODELS["gene_set_transformer"], "split=combination", "split.n_folds=3", "model.prior=additive")


def small(*overrides: str) -> DictConfig:
    cfg = composed(*PRIOR, "trainer.max_epochs=2", "evaluation.n_boot=20", *overrides)
    cfg.baselines = {name: cfg.baselines[name] for name in ("perturbed_mean", "additive")}
    return cfg


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return train(small("model.prior_use=average", f"paths.runs={tmp_path_factory.mktemp('runs')}"))


@pytest.fixture(scope="module")
def averaged() -> CellSetDataModule:
    cfg = small("model.prior_use=average")
    data = build.datamodule(cfg)
    _, spec = fit_prior(data, cfg)
    assert spec is data.spec
    return data


def whole(data: RecordDataModule, record) -> np.ndarray:
    """What the prior says when it is fitted on all of the training part."""
    fitted = instantiate(small().baselines.additive).fit(data.record("train"), data.record("val"), data.graph)
    return fitted.predict(record.blind())


def test_training_sets_carry_the_row_of_their_condition(averaged):
    expected = whole(averaged, averaged.record_whole)
    loader = averaged.train_dataloader()
    loader.sampler.set_epoch(3)
    batches = list(loader)
    assert len(batches) > 2
    for batch in batches:
        np.testing.assert_array_equal(batch.prior, expected[batch.sample.numpy()])
        np.testing.assert_array_equal(batch.narrow(0, 1).prior, expected[batch.sample[:1].numpy()])
        assert batch.to("cpu").blind().prior is not None
    for batch in averaged.test_dataloader():
        np.testing.assert_array_equal(batch.prior, expected[batch.sample.numpy()])


@pytest.mark.parametrize("name", ["perturbation", "cell_line"])
def test_the_prior_follows_the_input_that_is_shuffled(averaged, name):
    """The perturbation of another line is predicted on the own line's controls, not taken over from that line."""
    index = torch.from_numpy(averaged.split.index("test"))
    twin = averaged.shuffled(name, index, torch.Generator().manual_seed(1))
    before, after = averaged.packed[index], twin[index]
    asked = twin.record.subset(index.numpy())
    assert (asked.sample_id == averaged.record("test").sample_id).all()
    kept, moved = ("group", "perturbation") if name == "perturbation" else ("perturbation", "group")
    assert (getattr(asked, kept) == getattr(averaged.record("test"), kept)).all()
    assert (getattr(asked, moved) != getattr(averaged.record("test"), moved)).any()
    np.testing.assert_array_equal(after.prior, whole(averaged, asked))
    assert not torch.equal(after.prior.nan_to_num(), before.prior.nan_to_num())
    np.testing.assert_allclose(after.input_control.rows(), asked.input_control, atol=1e-6)
    names = np.array(averaged.spec.genes)
    assert ["+".join(sorted(names[one])) for one in np.split(after.gene, after.ptr[1:-1])] == [
        "+".join(sorted(one)) for one in asked.targets
    ]
    others = torch.from_numpy(averaged.split.index("train"))
    np.testing.assert_array_equal(twin[others].prior, averaged.packed[others].prior)


def test_what_is_left_is_out_of_fold_and_in_its_own_unit():
    pairs = ("data.record.n_regulators=30", "data.record.n_doubles=100", "split.n_folds=5")
    cfg = small("model.prior_use=residual", *pairs)
    data = build.datamodule(cfg)
    _, spec = fit_prior(data, cfg)
    at, train_part = data.split.index("train"), data.record("train")
    found = data.packed.prior[at].numpy()
    own = whole(data, train_part)
    single = np.array([len(targets) == 1 for targets in train_part.targets])
    np.testing.assert_allclose(own[single], train_part.target[single], atol=1e-5)  # it was fitted to them
    assert np.isnan(found[single]).all(), "a single is never held out where pairs are"
    assert (~np.isnan(found).any(1)).sum() >= 8
    start = train_part.input_control + data.spec.change_center.numpy()
    left = train_part.target - np.where(np.isnan(found), start, found)
    expected = np.sqrt(np.square(left).mean(0))
    loud = expected > 0.2 * np.sqrt(np.square(left).mean())
    np.testing.assert_allclose(spec.change_scale[torch.from_numpy(loud)], expected[loud], rtol=1e-4)
    np.testing.assert_allclose(spec.scale, expected, rtol=1e-4, atol=1e-6)
    model = checkpoint.built(cfg.model, spec)
    batch = next(iter(data.train_dataloader()))
    terms = model.losses(batch, model(batch.blind()))
    assert all(torch.isfinite(term) for term in terms.values())


def test_the_table_shows_the_prior_alone_the_network_alone_and_both(trained):
    table = pd.read_csv(trained.folder.path / "metrics.csv")
    assert {"GeneSetTransformer", "network_alone", "additive", "perturbed_mean"} <= set(table["system"])
    results = {
        name: trained.scored.results.systems[name] for name in ("network_alone", "additive", "GeneSetTransformer")
    }
    weights, data = trained.model.stacking, trained.datamodule
    start = data.record("test").input_control + data.spec.change_center.numpy()
    prior = np.where(np.isnan(results["additive"]), start, results["additive"])
    both = results["network_alone"] + float(weights.prior) * (prior - start)
    np.testing.assert_allclose(results["GeneSetTransformer"], both, atol=1e-4)
    history = pd.read_csv(trained.folder.path / "history.csv")
    assert {"val/weight/network", "val/weight/prior"} <= set(history.columns)


def test_predict_evaluate_and_embed_say_what_the_run_said(trained, tmp_path: Path):
    data = trained.datamodule
    record, expected = data.record("test"), trained.scored.results.systems["GeneSetTransformer"]
    counts(Saved(trained.folder.best, data, trained.model)).write_h5ad(tmp_path / "controls.h5ad")
    rows = {"perturbation": record.perturbation, "cell_line": record.group}
    pd.DataFrame(rows).to_csv(tmp_path / "asked.csv", index=False)
    ckpt = f"ckpt={trained.folder.best}"
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        keys = [ckpt, f"perturbations={tmp_path / 'asked.csv'}", f"controls={tmp_path / 'controls.h5ad'}"]
        predict(compose("predict", [*keys, f"out={tmp_path / 'out.h5ad'}"]))
        embed(compose("embed", [ckpt, "part=test", f"out={tmp_path / 'latents.h5ad'}", "umap=false"]))
        scored = evaluate(compose("evaluate", [ckpt, f"out={tmp_path / 'scored'}"]))
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_allclose(found[record.sample_id].X, expected, atol=1e-4)
    assert len(anndata.read_h5ad(tmp_path / "latents.h5ad")) == len(record)
    for name in ("GeneSetTransformer", "network_alone"):
        np.testing.assert_allclose(scored.results.systems[name], trained.scored.results.systems[name], atol=1e-5)
