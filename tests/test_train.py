"""The whole run: what it leaves behind, that it resumes bit for bit, and that processes don't change scores."""

from __future__ import annotations

import json
import struct
from functools import partial
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from torchcell.core.split import Split
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.screen.models.dango import Dango
from torchcell.train import Trained, train
from torchcell.training.entry import conf_dir
from torchcell.training.run_folder import config_hash
from torchcell.training.standard_baselines import departures

SMALL = (
    "data.record.n_genes=120",
    "data.record.n_sets=500",
    "data.record.n_queries=16",
    "data.record.n_arrays=60",
    "data.batch_size=128",
    "model.encoder.dim=16",
    "model.readout.heads=1",
    "model.readout.dropout=0.2",
    "trainer.max_epochs=3",
    "trainer.warmup_steps=2",
    "evaluation.n_boot=50",
    "baselines.gradient_boosting=null",
    "baselines.embedding_sum_mlp=null",
    "baselines.low_rank_als=null",
)


def config(folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", [*SMALL, f"paths.runs={folder}", *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Trained:
    return train(config(tmp_path_factory.mktemp("runs"), "logger=wandb"))


def test_the_verdict_names_standard_baselines_that_were_not_run(finished):
    """Who leaves out the strongest baseline is better than the best of the weak ones."""
    text = finished.scored.summary["verdict"]["text"]
    assert "standard baselines not run: low_rank_als, embedding_sum_mlp, gradient_boosting" in text
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        screen = partial(departures, package="torchcell.screen")
        assert screen(compose("config").baselines) == ()
        assert screen(compose("config", ["baselines=none"]).baselines) == ()
        assert screen(compose("config", ["~baselines.profile_neighbors"]).baselines) == (
            "standard baselines not run: profile_neighbors",
        )
        weakened = compose("config", ["baselines.low_rank_als.rank=1", "baselines.mean=null"]).baselines
        assert screen(weakened) == (
            "standard baselines not run: mean",
            "baselines with other settings than the standard ones: low_rank_als",
        )
        assert "low_rank_als" in screen(compose("config", ["+debug=fast"]).baselines)[0]


@pytest.mark.parametrize("task", ["screen", "drug_response", "cells", "knowledge_graph"])
def test_standard_baselines_are_those_of_the_data_even_where_none_of_them_is_run(task):
    """Who runs a baseline of their own only is better than that one only."""
    (said,) = departures({"mine": {"_target_": "my_package.Mine"}}, f"torchcell.{task}")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        names = {"screen": "screen", "drug_response": "response", "cells": "cells", "knowledge_graph": "links"}
        standard = compose("config", [f"baselines={names[task]}"]).baselines
    assert said == f"standard baselines not run: {', '.join(standard)}"
    assert departures({"mine": {"_target_": "my_package.Mine"}}, "my_package") == ()


def test_the_folder_holds_all_that_the_contract_names(finished):
    folder = finished.folder.path
    names = "config.yaml environment.json split.parquet history.csv metrics.csv comparisons.csv metrics.json predictions.parquet report.html"
    for name in (*names.split(), "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (folder / name).stat().st_size > 0, name
    assert list((folder / "figures").glob("*.png"))
    assert not list(folder.rglob("*.part*")), "no half-written file is left"
    assert folder.name == f"{config_hash(OmegaConf.load(folder / 'config.yaml'))[:8]}-s0"


def test_tables_have_the_columns_of_the_contract(finished):
    folder = finished.folder.path
    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2]
    assert {"train/loss", "val/score", "train/grad_norm", "samples_per_s", "memory_mb"} <= set(history.columns)
    assert {"train/loss/phenotype", "train/share/phenotype", "val/gene_interaction/Pearson"} <= set(history.columns)
    lr = finished.model.optimizer.keywords["lr"]
    assert history["train/lr"].tolist() == pytest.approx([lr] * 3), "of the epoch's last step, after two of warm-up"
    metrics = pd.read_csv(folder / "metrics.csv")
    assert list(metrics.columns) == ["system", "part", "metric", "value", "low", "high", "n_units", "n_undefined"]
    assert {"Dango", "mean", "additive_ridge", "replicate_ceiling"} <= set(metrics["system"])
    summary = json.loads((folder / "metrics.json").read_text())
    wanted = {
        "verdict",
        "collapsed",
        "checks",
        "split_hash",
        "epochs",
        "converged",
        "seconds",
        "peak_mb",
        "samples_per_s",
    }
    assert wanted <= set(summary)
    assert summary["split_hash"] == Split.load(folder / "split.parquet").hash
    predictions = pd.read_parquet(folder / "predictions.parquet")
    assert {"sample_id", "target", "measured", "Dango", "mean"} <= set(predictions.columns)
    assert set(predictions["sample_id"]) == set(finished.datamodule.record("test").sample_id)


def wandb_records(path: Path) -> list:
    """The records of an offline run: LevelDB log format, blocks of 32 kB after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, offset, parts, records = path.read_bytes(), 7, b"", []
    while offset + 7 <= len(data):
        if (left := 32768 - offset % 32768) < 7:
            offset += left
            continue
        _, length, kind = struct.unpack("<IHB", data[offset : offset + 7])
        chunk = data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        parts = chunk if kind in (1, 2) else parts + chunk
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            records.append(record)
    return records


def test_the_wandb_record_holds_config_metrics_and_the_reports_figures(finished):
    (path,) = finished.folder.path.glob("wandb/offline-run-*/*.wandb")
    config, history, summary = {}, {}, {}
    for record in wandb_records(path):
        for update in [*record.config.update, *record.run.config.update]:
            config[update.key] = update.value_json
        for item in record.history.item:
            history[item.nested_key[0]] = item.value_json
        for item in record.summary.update:
            summary[item.key or item.nested_key[0]] = item.value_json
    assert json.loads(config["model"])["encoder"]["dim"] == 16
    assert float(history["val/gene_interaction/Pearson"]) == pytest.approx(
        pd.read_csv(finished.folder.path / "history.csv")["val/gene_interaction/Pearson"].iloc[-1]
    )
    assert {"train/loss/phenotype", "train/lr"} <= set(history)
    assert float(summary["val/score"]) == pytest.approx(finished.score)
    drawn = {f"figures/{figure.stem}" for figure in (finished.folder.path / "figures").glob("*.png")}
    assert drawn
    assert drawn <= set(history)
    assert len(list(path.parent.rglob("*.png"))) == len(drawn)
    assert "metrics" in history


def test_a_second_run_of_the_same_config_refuses_and_says_what_to_do(finished):
    cfg = config(finished.folder.path.parents[1], "logger=wandb")
    with pytest.raises(InputError, match="already holds a run.*ckpt_path=last.*overwrite=true"):
        train(cfg)


class Stop(Exception):
    """Stands for a machine that is taken away."""


class StopAfter(lightning.Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.epoch:
            raise Stop


def interrupt(monkeypatch, cfg: DictConfig, epoch: int) -> None:
    """Run ``cfg`` until the machine is taken away at the start of ``epoch``."""
    from torchcell.training import build as assemble

    original = assemble.trainer

    def interrupted(*arguments):
        trainer = original(*arguments)
        trainer.callbacks.append(StopAfter(epoch))
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(assemble, "trainer", interrupted)
        with pytest.raises(Stop):
            train(cfg)


@pytest.mark.parametrize("how", ["ckpt_path=last", "requeued"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch, how):
    """With the experiment's own schedule, and stopped while the rate still warms up."""
    real = ("+experiment=simulated_dango", "trainer.max_epochs=4", "trainer.warmup_steps=20", "logger=wandb")
    whole = train(config(tmp_path / "whole", *real))
    cfg = config(tmp_path / "parts", *real)
    interrupt(monkeypatch, cfg, epoch=2)
    if how == "requeued":
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        cfg.overwrite = True  # a job script that says so must not throw away what it did before it was requeued
    else:
        cfg.ckpt_path = "last"
    resumed = train(cfg)
    assert resumed.folder.path.name == whole.folder.path.name
    ids = {path.stem.removeprefix("run-") for path in resumed.folder.path.glob("wandb/offline-run-*/*.wandb")}
    assert len(ids) == 1, "both parts are one wandb run"
    a, b = (torch.load(run.folder.path / "checkpoints/last.ckpt", weights_only=True) for run in (whole, resumed))
    assert a["epoch"] == b["epoch"] == 3
    for name, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][name]), name
    columns = ["epoch", "train/loss", "val/score"]
    pd.testing.assert_frame_equal(*(pd.read_csv(r.folder.path / "history.csv")[columns] for r in (whole, resumed)))
    assert whole.scored is not None
    assert resumed.scored is not None
    pd.testing.assert_frame_equal(whole.scored.evaluation.table, resumed.scored.evaluation.table)


def test_the_last_checkpoint_is_of_the_last_epoch_also_where_an_earlier_one_was_the_best(tmp_path):
    """A run that was requeued went back to its best epoch, and lost all that came after."""
    folder = train(config(tmp_path, "model.optimizer.lr=0.0")).folder.path / "checkpoints"
    epochs = {name: torch.load(folder / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")}
    assert epochs == {"best": 0, "last": 2}


def test_a_run_does_not_go_on_when_the_data_behind_its_config_has_changed(tmp_path, monkeypatch):
    from torchcell.screen import simulate

    cfg = config(tmp_path)
    interrupt(monkeypatch, cfg, epoch=1)
    original = simulate.simulated_screen
    fewer = configurable(lambda **known: original(**known).subset(np.arange(450)))
    monkeypatch.setattr(simulate, "simulated_screen", fewer)
    cfg.ckpt_path = "last"
    with pytest.raises(InputError, match="trained on other data: split, samples differ"):
        train(cfg)


def test_a_run_that_failed_before_its_first_checkpoint_may_simply_be_tried_again(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("in the first step")

    with pytest.raises(InputError):
        train(config(tmp_path, "model.encoder.channels=[physcal]"))
    assert not list(tmp_path.iterdir()), "a failed start leaves no folder"
    cfg = config(tmp_path, "model.encoder.channels=[physical]", "trainer.max_epochs=1")
    with pytest.raises(InputError, match="no network named|no relation"):
        train(OmegaConf.merge(cfg, {"graph": {"relations": ["coexpression"]}}))
    with monkeypatch.context() as patched:
        patched.setattr(Dango, "losses", fail)
        with pytest.raises(RuntimeError, match="in the first step"):
            train(cfg)
    assert not list(tmp_path.iterdir()), "nor does one that fails in its first step"
    assert train(cfg).scored is not None
    with pytest.raises(InputError, match="give one of the two"):
        train(OmegaConf.merge(cfg, {"overwrite": True, "ckpt_path": "last"}))
    assert (tmp_path / "simulated_cell").is_dir()


def test_going_on_with_a_run_that_never_started_says_so(tmp_path):
    with pytest.raises(InputError, match="ckpt_path=last, but there is no"):
        train(config(tmp_path, "ckpt_path=last"))


def test_fine_tuning_starts_from_the_given_weights(finished, tmp_path):
    tuned = config(tmp_path, f"init_from={finished.folder.best}", "trainer.max_epochs=1", "model.optimizer.lr=0.0")
    assert torch.equal(train(tuned).model.embedding.weight, finished.model.embedding.weight)


def test_fine_tuning_on_other_genes_is_refused(finished, tmp_path):
    other = config(tmp_path, f"init_from={finished.folder.best}", "data.record.n_genes=132")
    with pytest.raises(InputError, match="trained on other data: genes differ"):
        train(other)


def test_fine_tuning_goes_on_with_another_cell_where_features_alone_say_what_a_gene_is(tmp_path, monkeypatch):
    from feature_screen import FeatureScreen

    def other_cell(n_genes: int, *more: str) -> DictConfig:
        feature = "{_target_: torchcell.graph.features.network_features, _partial_: true, spectral: 4}"
        cfg = config(tmp_path, f"data.record.n_genes={n_genes}", f"data.features={feature}", *more)
        OmegaConf.set_struct(cfg, False)
        rate = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.0 if more else 0.01}
        cfg.model = {"_target_": "feature_screen.FeatureScreen", "free": False, "optimizer": rate}
        cfg.baselines = {}
        return cfg

    first = train(other_cell(120))
    tuned = other_cell(132, f"init_from={first.folder.best}", "trainer.max_epochs=1")
    with pytest.raises(InputError, match="trained on other data: genes differ"):
        train(tuned)
    monkeypatch.setattr(FeatureScreen, "reads_names", False)
    assert torch.equal(train(tuned).model.effect.weight, first.model.effect.weight)
    tuned.data.features.spectral, tuned.overwrite = 5, True
    with pytest.raises(InputError, match="trained on other data: gene features differ"):
        train(tuned)


def test_baselines_are_answered_from_the_cache_only_for_the_same_data(finished):
    from dataclasses import replace

    from torchcell.training.baselines import code_hash, data_hash

    module = finished.datamodule
    record, split = module.record_whole, {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}

    def key(**changes: object) -> str:
        return data_hash(type(module)(replace(record, **changes), split, module.graph))

    before, other = key(), record.phenotype.copy()
    other[3] += 1
    assert key(columns={**record.columns, "query": np.roll(record.columns["query"], 1)}) != before
    assert key(phenotype=other) != before
    assert key(name="renamed") == before == data_hash(module)
    ours, users = "torchcell.screen.baselines.Mean", "linear_screen.AdditiveScreen"
    assert code_hash({"_target_": ours}) != code_hash({"_target_": users})


def test_the_seed_and_the_config_name_the_folder(tmp_path):
    base = config(tmp_path)
    assert config_hash(base) == config_hash(OmegaConf.merge(base, {"seed": 5, "paths": {"runs": "elsewhere"}}))
    assert config_hash(base) != config_hash(OmegaConf.merge(base, {"model": {"encoder": {"dim": 32}}}))


def test_no_test_value_reaches_what_is_fitted(tmp_path, monkeypatch):
    """Change every test value: spec, weights and baselines' predictions stay byte-identical."""
    from torchcell.screen import simulate

    first = train(config(tmp_path / "a", "trainer.max_epochs=1"))
    held = first.datamodule.split.index("test")
    original = simulate.simulated_screen

    def poisoned(**arguments):
        screen = original(**arguments)
        screen.phenotype[held] = 1e3 + np.arange(len(held))[:, None]
        return screen

    monkeypatch.setattr(simulate, "simulated_screen", poisoned)
    second = train(config(tmp_path / "b", "trainer.max_epochs=1"))
    assert np.nanmin(second.datamodule.record("test").target) >= 1e3, "the poison must have arrived"
    assert torch.equal(first.datamodule.spec.center, second.datamodule.spec.center)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert first.scored is not None
    assert second.scored is not None
    for name, predicted in first.scored.results.systems.items():
        if name != "replicate_ceiling":
            assert np.array_equal(predicted, second.scored.results.systems[name], equal_nan=True), name


def test_two_processes_score_exactly_the_test_set_and_one_process_agrees(tmp_path):
    """Padding of the distributed sampler is dropped: the same checkpoint has the same table for 1 and 2 processes."""
    import subprocess
    import sys

    from torchcell.evaluate import evaluate

    overrides = [*SMALL, "trainer=ddp_cpu", "trainer.max_epochs=2", "logger=wandb", f"paths.runs={tmp_path}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "torchcell.train", *overrides]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr[-3000:]
    (folder,) = (path.parent for path in tmp_path.glob("*/*/metrics.csv"))
    assert len(list(folder.glob("wandb/offline-run-*"))) == 1
    assert len(list(tmp_path.rglob("report.html"))) == answer.stdout.count("report.html") == 1
    assert pd.read_csv(folder / "history.csv")["epoch"].tolist() == [0, 1]
    request = {
        "ckpt": str(folder / "checkpoints/best.ckpt"),
        "part": "test",
        "n_boot": 50,
        "umap": False,
        "batch_size": None,
        "cell_eval_out": None,
        "comparators": [],
        "trust": [],
        "data_changed": "error",
        "out": str(tmp_path / "one"),
    }
    evaluate(OmegaConf.create(request))
    two, one = (pd.read_parquet(path / "predictions.parquet") for path in (folder, tmp_path / "one"))
    split = Split.load(folder / "split.parquet")
    assert two["sample_id"].tolist() == one["sample_id"].tolist() == split.sample_id[split.index("test")].tolist()
    np.testing.assert_allclose(two["Dango"], one["Dango"], atol=1e-6)
    pd.testing.assert_frame_equal(
        *(pd.read_csv(path / "metrics.csv") for path in (folder, tmp_path / "one")), atol=1e-6
    )


def test_the_readmes_own_screen_and_network_train_and_report_each_phenotype(tmp_path):
    """Two phenotypes with missing values, no query column, an edge list: as a user brings them."""
    rng = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(60)]
    sets = sorted({"|".join(sorted(rng.choice(genes, 2, replace=False))) for _ in range(500)})
    growth = np.where(rng.random(len(sets)) < 0.1, np.nan, rng.normal(size=len(sets)))
    table = pd.DataFrame({"genes": sets, "fitness": rng.normal(size=len(sets)), "growth": growth})
    table.to_csv(tmp_path / "screen.csv", index=False)
    edges = pd.DataFrame({"source": genes, "target": np.roll(genes, 1)})
    edges.to_csv(tmp_path / "network.csv", index=False)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        own = [f"data.record.path={tmp_path}/screen.csv", f"graph.networks.0.path={tmp_path}/network.csv"]
        choices = [
            "data=screen",
            "graph=edge_list",
            "split=gene_disjoint_any",
            "name=mine",
            f"paths.runs={tmp_path}/runs",
        ]
        cfg = compose("config", [*choices, *own, "trainer.max_epochs=2", "evaluation.n_boot=20"])
    scored = train(cfg).scored
    assert scored is not None
    metrics = scored.evaluation.table
    assert {"fitness/pearson", "growth/pearson"} <= set(metrics["metric"])
    assert (metrics.query("system == 'Dango' and metric == 'growth/mae'")["n_undefined"] == 0).all()
