"""Proof that the base carries all four record kinds: train, evaluate, predict and report, no special case."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from torchcell.evaluate import evaluate
from torchcell.predict import predict
from torchcell.train import Trained, train
from torchcell.training.entry import conf_dir

MODEL = {
    "_target_": "linear_models.Linear",
    "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.03, "weight_decay": 0.0},
}
KINDS = {
    "screen": ("torchcell.screen.simulate.simulated_screen", {"genes": "G0001|G0002"}, "gene_interaction"),
    "response": ("linear_models.response", {"drug": "drug1", "cell_line": "line1", "dose": "1.0"}, None),
    "cells": ("linear_models.cells", {"perturbation": "G0001", "cell_line": "LINE1"}, "G0001"),
    "links": ("linear_models.links", {"source": "Compound::1", "target": "Gene::1"}, "CbG_matched"),
}


def run(kind: str, folder, epochs: int = 30) -> Trained:
    record = {"_target_": KINDS[kind][0]}
    data = {"_target_": "linear_models.LinearDataModule", "record": record, "batch_size": 64}
    model = MODEL
    if kind == "screen":
        data |= {"_target_": "torchcell.screen.datamodule.PerturbationDataModule"}
        model = MODEL | {"_target_": "linear_screen.AdditiveScreen"}
    overrides = ["~baselines", "~data", "~model", "graph=none", f"paths.runs={folder}", f"trainer.max_epochs={epochs}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", [*overrides, f"name={kind}", "evaluation.n_boot=50", "trainer.warmup_steps=0"])
    OmegaConf.set_struct(cfg, False)
    cfg.data, cfg.model, cfg.baselines = data, model, {}
    return train(cfg)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_goes_through_train_evaluate_predict_and_report(kind, tmp_path):
    trained = run(kind, tmp_path / "runs")
    folder, scored = trained.folder.path, trained.scored
    assert scored is not None
    for name in ("config.yaml", "environment.json", "split.parquet", "history.csv", "metrics.csv", "report.html"):
        assert (folder / name).is_file(), name
    assert (folder / ("predictions.parquet" if scored.results.task != "expression" else "predictions.h5ad")).is_file()
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["collapsed"] is False
    (shuffled,) = (value for name, value in summary["checks"].items() if name.endswith("shuffled"))
    assert shuffled["shuffles"] == 5
    # Degree-matched negatives leave a sum of one effect a node nothing to find, so links need not lose.
    assert kind == "links" or shuffled["drop"] > 0

    trust = ["linear_models", "linear_screen"]
    request = OmegaConf.create(
        {"ckpt": str(trained.folder.best), "part": "test", "n_boot": 50, "batch_size": None, "trust": trust}
    )
    rest = {
        "out": str(tmp_path / "again"),
        "umap": False,
        "cell_eval_out": None,
        "comparators": [str(trained.folder.last)],
    }
    rest["data_changed"] = "error"
    again = evaluate(OmegaConf.merge(request, rest))
    comparator = f"{scored.results.model} {folder.name} last"
    assert list(again.summary["comparators"]) == [comparator]
    assert again.evaluation.verdict.text == scored.evaluation.verdict.text
    own = again.evaluation.table.query("system != @comparator").reset_index(drop=True)
    pd.testing.assert_frame_equal(own, scored.evaluation.table)

    asked = tmp_path / "asked.csv"
    rows = _first_test_rows(trained, kind)
    rows.to_csv(asked, index=False)
    wanted = {"perturbations": str(asked), "out": str(tmp_path / "out.csv"), "unknown_genes": "error", "batch_size": 2}
    wanted |= {"added_genes": None, "attention_out": None, "top_genes": 20, "source": None, "target": None}
    wanted |= {"controls": None, "columns": None, "system": "model"}
    table = predict(OmegaConf.merge(request, wanted)).set_index("sample_id")
    expected = scored.results.systems[scored.results.model][: len(rows)]
    assert np.allclose(table.loc[rows["sample_id"], list(scored.results.outputs)], expected, atol=1e-5)


def _first_test_rows(trained: Trained, kind: str) -> pd.DataFrame:
    """The first test samples as a user would write them in a file."""
    from linear_models import columns_of

    record = trained.datamodule.record("test").subset(np.arange(5))
    if kind == "screen":
        return pd.DataFrame({"sample_id": record.sample_id, "genes": ["|".join(s) for s in record.sets()]})
    return pd.DataFrame({"sample_id": record.sample_id, **columns_of(record)})
