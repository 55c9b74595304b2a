"""A task that no shared package has heard of trains, is scored beside its baselines, and is reported."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from torchcell.io.errors import InputError
from torchcell.train import Trained, train
from torchcell.training.baselines import saved_baseline
from torchcell.training.checkpoint import load
from torchcell.training.entry import conf_dir

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("curves")
    overrides = ["~baselines", "~data", "~model", "graph=none", "split=random", f"paths.runs={folder}", "name=curves"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", [*overrides, "trainer.max_epochs=15", "evaluation.n_boot=60", "trainer.warmup_steps=0"])
    OmegaConf.set_struct(cfg, False)
    cfg.split.method = "largest"
    cfg.data = {"_target_": "dose_curve.CurveDataModule", "record": {"_target_": "dose_curve.curves"}, "batch_size": 32}
    optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.05, "weight_decay": 0.0}
    cfg.model = {"_target_": "dose_curve.LinearCurve", "optimizer": optimizer}
    names = ("mean_curve", "MeanCurve"), ("steepest_curve", "SteepestCurve")
    cfg.baselines = {name: {"_target_": f"dose_curve.{cls}"} for name, cls in names}
    return train(cfg)


def test_it_is_split_and_scored_by_its_own_rules(trained):
    split = trained.datamodule.split
    dose = trained.datamodule.record_whole.dose[:, 0]
    assert split.method == "largest"
    assert dose[split.part == "test"].min() >= dose[split.part == "val"].max()
    table = trained.scored.evaluation.table
    assert set(table["metric"]) == {"likeness", "distance"}
    assert set(table["system"]) == {"LinearCurve", "mean_curve", "steepest_curve"}
    value = table.set_index(["system", "metric"])["value"]
    assert value["LinearCurve", "likeness"] > 0.9
    verdict = trained.scored.evaluation.verdict
    assert (verdict.kind, verdict.primary.metric) == ("better", "likeness")


def test_it_is_written_and_reported(trained):
    folder = trained.folder.path
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["checks"]["slope"] == {"status": "ok"}
    assert summary["checks"]["dose_shuffled"]["drop"] > 0
    assert summary["lower_is_better"] == ["distance"]
    page = (folder / "report.html").read_text()
    assert "Slopes" in page
    assert "They rise." in page
    predicted = pd.read_parquet(folder / "predictions.parquet")
    assert np.allclose(predicted["LinearCurve"], trained.scored.results.systems["LinearCurve"][:, 0])


def test_its_fitted_baselines_can_be_asked(trained):
    saved = load(trained.folder.best, trust=["dose_curve"])
    record = trained.datamodule.record("test")
    again = saved_baseline(saved, "steepest_curve", ["dose_curve"]).predict(record.blind())
    assert np.array_equal(again, trained.scored.results.systems["steepest_curve"])


def test_methods_of_other_tasks_are_not_its_own(trained):
    with pytest.raises(InputError, match="no split method 'cold_drug' for curves; split= takes random, largest, file"):
        trained.datamodule.TASK.splits.make(trained.datamodule.record_whole, "cold_drug")


def test_no_shared_package_names_it():
    found = subprocess.run(
        ["git", "grep", "-l", "dose_curve\\|LinearCurve", "--", "torchcell", "conf"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout == ""
