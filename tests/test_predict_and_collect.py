"""predict matches genes by name whatever the order; collect never ranks runs of different splits together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from torchcell.collect import collect, main
from torchcell.data.errors import InputError
from torchcell.datamodules.perturbation import PerturbationDataModule
from torchcell.graph.cell_graph import CellGraph
from torchcell.predict import predict
from torchcell.run import checkpoint

SPLIT = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


@pytest.fixture
def saved(pairs, ring, tmp_path) -> Path:
    """A checkpoint whose prediction for a set is the sum of its genes' positions in the vocabulary."""
    from linear_screen import AdditiveScreen

    spec = PerturbationDataModule(pairs, SPLIT, CellGraph.from_networks(ring)).spec
    model = AdditiveScreen(spec)
    with torch.no_grad():
        model.effect.weight[:, 0] = (torch.arange(len(spec.genes)) - spec.center) / spec.scale
    config = {
        "model": {"_target_": "linear_screen.AdditiveScreen"},
        "data": {"_target_": "torchcell.datamodules.perturbation.PerturbationDataModule"},
    }
    about = {checkpoint.KEY: checkpoint.describe(spec, OmegaConf.create(config))}
    torch.save({"state_dict": model.state_dict(), "epoch": 0, **about}, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def ask(saved: Path, table: pd.DataFrame, **changes) -> pd.DataFrame:
    asked = saved.parent / "asked.csv"
    table.to_csv(asked, index=False)
    given = {"ckpt": str(saved), "perturbations": str(asked), "out": str(saved.parent / "out.parquet")}
    rest = {"unknown_genes": "error", "batch_size": 2, "trust": ["linear_screen"]}
    return predict(OmegaConf.create(given | rest | changes))


def test_genes_are_matched_by_name_whatever_the_order_of_rows_columns_and_members(saved):
    table = pd.DataFrame({"sample_id": ["x", "y", "z"], "genes": ["A01|A02", "Q03", "A05|A04|A03"]})
    plain = ask(saved, table).set_index("sample_id")
    shuffled = table.iloc[[2, 0, 1]][["genes", "sample_id"]].assign(
        genes=lambda f: ["|".join(reversed(g.split("|"))) for g in f["genes"]]
    )
    again = ask(saved, shuffled).set_index("sample_id")
    np.testing.assert_allclose(plain["y"], again.loc[plain.index, "y"], rtol=1e-6)
    assert plain["y"].nunique() == 3
    assert pd.read_parquet(saved.parent / "out.parquet")["genes"].tolist() == again["genes"].tolist()


def test_a_list_without_ids_is_named_by_its_genes(saved):
    assert ask(saved, pd.DataFrame({"genes": ["A01|A02"]}))["sample_id"].tolist() == ["A01|A02"]


def test_unknown_genes_are_named_or_dropped_and_counted(saved, capsys):
    table = pd.DataFrame({"genes": ["A01|A02", "A01|A0x2"]})
    with pytest.raises(InputError, match=r"1 gene\(s\).*'A0x2'.*did you mean.*unknown_genes=drop"):
        ask(saved, table)
    assert not (saved.parent / "out.parquet").exists()
    assert len(ask(saved, table, unknown_genes="drop")) == 1
    assert "left out: 1" in capsys.readouterr().out


def test_a_name_that_no_writer_knows_is_refused(saved):
    with pytest.raises(InputError, match="must end in .parquet or .csv"):
        ask(saved, pd.DataFrame({"genes": ["A01"]}), out="out.xlsx")


def run_folder(root: Path, name: str, split_hash: str, values: dict[str, float], fold: int = 0) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    cfg = {"name": "toy", "seed": 0, "split": {"method": "random", "fold": fold}, "data": {}}
    OmegaConf.save(OmegaConf.create(cfg), folder / "config.yaml")
    (folder / "metrics.json").write_text(
        json.dumps({"split_hash": split_hash, "converged": True, "epochs": 3, "seconds": 7, "verdict": "beats 1 of 2"})
    )
    rows = [
        {"system": system, "part": "test", "metric": metric, "value": value, "low": value - 0.1, "high": value + 0.1}
        for system, value in values.items()
        for metric in ("pearson", "mae")
    ]
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)


def test_runs_of_different_splits_are_averaged_but_never_ranked_together(tmp_path):
    run_folder(tmp_path, "a", "h1", {"Dango": 0.5, "mean": 0.1, "replicate_ceiling": 0.9})
    run_folder(tmp_path, "b", "h1", {"Dango": 0.3, "mean": 0.2, "replicate_ceiling": 0.9})
    run_folder(tmp_path, "c", "h2", {"Dango": 0.7, "mean": 0.1, "replicate_ceiling": 0.9}, fold=1)
    table = collect([tmp_path])
    runs = table[(table["level"] == "run") & (table["metric"] == "pearson")]
    rank = runs.set_index([runs["run"].map(lambda path: Path(path).name), "system"])["split_rank"]
    assert rank["a", "Dango"] == 1
    assert rank["b", "Dango"] == 2
    assert rank["c", "Dango"] == 1, "the only run of its split"
    assert np.isnan(rank["a", "replicate_ceiling"])
    means = table[(table["level"] == "mean") & (table["metric"] == "pearson")].set_index("system")
    assert means.loc["Dango", "value"] == pytest.approx(0.5)
    assert means.loc["Dango", ["n_runs", "n_splits"]].tolist() == [3, 2]


def test_a_metric_that_is_best_when_small_is_ranked_so(tmp_path):
    run_folder(tmp_path, "a", "h1", {"Dango": 0.5, "mean": 0.1})
    table = collect([tmp_path])
    rank = table[table["level"] == "run"].set_index(["system", "metric"])["rank"]
    assert rank["mean", "mae"] == 1
    assert rank["Dango", "pearson"] == 1


def test_runs_of_different_configs_are_never_averaged(tmp_path):
    run_folder(tmp_path, "a", "h1", {"Dango": 0.5, "mean": 0.1})
    run_folder(tmp_path, "b", "h1", {"Dango": 0.3, "mean": 0.1})
    cfg = OmegaConf.load(tmp_path / "b" / "config.yaml")
    OmegaConf.save(OmegaConf.merge(cfg, {"data": {"subset": 600}}), tmp_path / "b" / "config.yaml")
    means = collect([tmp_path]).query("level == 'mean' and metric == 'pearson' and system == 'Dango'")
    assert sorted(means["value"]) == [0.3, 0.5]


def test_the_markdown_table_holds_means_intervals_and_each_runs_verdict(tmp_path):
    run_folder(tmp_path, "a", "h1", {"Dango": 0.5, "mean": 0.1})
    run_folder(tmp_path, "b", "h1", {"Dango": 0.3, "mean": 0.1})
    assert main([str(tmp_path), "-o", str(tmp_path / "t.md")]) == 0
    text = (tmp_path / "t.md").read_text()
    assert ", random, test: 2 run(s)" in text
    assert "| Dango | 0.400 ± 0.141 [0.300, 0.500] | 0.400 ± 0.141 [0.300, 0.500] |" in text
    assert text.count("3 epochs in 7 s; beats 1 of 2") == 2


def test_collect_says_which_runs_have_not_finished(tmp_path, capsys):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text("name: x\n")
    assert main([str(tmp_path), "-o", str(tmp_path / "t.csv")]) == 1
    assert "1 run(s) have not finished" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), "-o", str(tmp_path / "t.csv")]) == 1
    assert "no such folder" in capsys.readouterr().err
