"""A run on links from end to end: labels and ranks in one table, the same again from the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import torchcell as tc
from torchcell.evaluate import evaluate
from torchcell.io.errors import InputError
from torchcell.predict import predict
from torchcell.train import train
from torchcell.training.entry import conf_dir

SMALL = ("n_genes=60", "n_compounds=40", "n_diseases=30", "n_communities=5")


def test_links_go_through_train_evaluate_and_predict(tmp_path: Path) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(
            "config",
            ["data=simulated_knowledge_graph", "split=edges", "graph=none", "~baselines", "~model", "name=links",
             *(f"data.record.{key}" for key in SMALL), f"paths.runs={tmp_path / 'runs'}", "trainer.max_epochs=15",
             "evaluation.n_boot=50", "trainer.warmup_steps=0"],
        )  # fmt: skip
    OmegaConf.set_struct(cfg, False)
    optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.03}
    cfg.model = {"_target_": "bilinear_links.Bilinear", "optimizer": optimizer}
    cfg.baselines = {"degrees": {"_target_": "bilinear_links.Degrees"}}
    trained = train(cfg)
    scored, folder = trained.scored, trained.folder.path
    assert scored is not None
    names = [f"CtD_{node_type}/{name}" for node_type in ("matched", "uniform") for name in ("auroc", "auprc", "brier")]
    names += [f"CtD_{end}/{name}" for end in ("tail", "head") for name in ("mrr", "hits@1", "hits@10")]
    table = pd.read_csv(folder / "metrics.csv")
    assert table[table.system == "degrees"].metric.tolist() == [*names, "mrr"]
    assert scored.evaluation.verdict.primary.metric == "mrr"
    ranks = pd.read_parquet(folder / "ranks.parquet")
    test = trained.datamodule.record("test")
    assert ranks["sample_id"].unique().tolist() == test.sample_id[test.positive].tolist()
    assert ranks[["Bilinear", "degrees"]].min().min() >= 1
    assert np.isclose(
        (1 / ranks[ranks.target == "CtD_tail"]["degrees"]).mean(), _value(table, "degrees", "CtD_tail/mrr")
    )
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["checks"]["source_node_shuffled"]["metric"] == "auroc"
    page = (folder / "report.html").read_text()
    assert all(f"<h3>{name}</h3>" in page for name in ("CtD_matched", "CtD_uniform", "CtD_tail", "CtD_head"))

    request = OmegaConf.create(
        {
            "ckpt": str(trained.folder.best),
            "part": "test",
            "n_boot": 50,
            "batch_size": None,
            "umap": False,
            "data_changed": "error",
        }
    )
    request.trust, request.cell_eval_out = ["bilinear_links"], None
    rest = {"out": str(tmp_path / "again"), "comparators": [str(trained.folder.last)]}
    again = evaluate(OmegaConf.merge(request, rest))
    (comparator,) = again.summary["comparators"]
    assert {"mrr", "hits@10"} == set(again.summary["comparators"][comparator]["differences"])
    own = again.evaluation.table.query("system != @comparator").reset_index(drop=True)
    pd.testing.assert_frame_equal(own, scored.evaluation.table)
    asked = pd.DataFrame({"source": test.node_id[test.source_index[:5]], "target": test.node_id[test.target_index[:5]]})
    asked.to_csv(tmp_path / "asked.csv", index=False)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        wanted = compose("predict", [f"ckpt={trained.folder.best}", "batch_size=2", "trust=[bilinear_links]"])
    wanted.perturbations, wanted.out = str(tmp_path / "asked.csv"), str(tmp_path / "out.csv")
    answer = predict(wanted)
    assert answer["sample_id"].tolist() == test.sample_id[:5].tolist()
    in_python = tc.load(trained.folder.path, trust=["bilinear_links"])
    pd.testing.assert_frame_equal(in_python.predict(asked), answer)
    pairs = list(zip(asked["source"], asked["target"], strict=True))
    np.testing.assert_array_equal(in_python.predict(pairs)["score"], answer["score"])
    with pytest.raises(InputError, match="as a list holds source and target of each row"):
        in_python.predict(["A", "B"])
    expected = scored.results.systems["Bilinear"][:5]
    np.testing.assert_allclose(answer["score"], expected[:, 0], atol=1e-5)
    assert not {"CtD_matched", "probability"} & set(answer), "a score is no probability: non-links were drawn"


def _value(table: pd.DataFrame, system: str, metric: str) -> float:
    return table[(table.system == system) & (table.metric == metric)].value.item()
