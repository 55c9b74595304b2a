"""predict matches genes by name whatever the order; collect never ranks runs of different splits together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from torchcell.collect import _folders, collect, main
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.io.gene_features import GeneFeatures
from torchcell.predict import predict
from torchcell.screen.datamodule import PerturbationDataModule
from torchcell.training import checkpoint

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
        "data": {"_target_": "torchcell.screen.datamodule.PerturbationDataModule"},
    }
    about = {checkpoint.KEY: checkpoint.describe(spec, OmegaConf.create(config))}
    torch.save({"state_dict": model.state_dict(), "epoch": 0, **about}, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def ask(saved: Path, table: pd.DataFrame, **changes) -> pd.DataFrame:
    asked = saved.parent / "asked.csv"
    table.to_csv(asked, index=False)
    given = {"ckpt": str(saved), "perturbations": str(asked), "out": str(saved.parent / "out.parquet")}
    rest = {"unknown_genes": "error", "batch_size": 2, "trust": ["linear_screen", "feature_screen"]}
    rest |= {"added_genes": None, "attention_out": None, "top_genes": 20, "source": None, "target": None}
    rest |= {"controls": None, "columns": None, "system": "model"}
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


def test_a_phenotype_called_note_keeps_its_column(make_screen, tmp_path):
    from linear_screen import AdditiveScreen

    screen = make_screen([f"A{i}|B{i}" for i in range(20)], phenotype_names=("note",))
    spec = PerturbationDataModule(screen, SPLIT).spec
    config = {
        "model": {"_target_": "linear_screen.AdditiveScreen"},
        "data": {"_target_": "torchcell.screen.datamodule.PerturbationDataModule"},
    }
    about = {checkpoint.KEY: checkpoint.describe(spec, OmegaConf.create(config))}
    torch.save({"state_dict": AdditiveScreen(spec).state_dict(), "epoch": 0, **about}, tmp_path / "best.ckpt")
    table = ask(tmp_path / "best.ckpt", pd.DataFrame({"genes": ["A1"]}))
    assert table["note"].dtype.kind == "f"
    assert table["prediction_note"].tolist()[0].startswith("set of 1, trained on sets of 2")


def test_a_list_without_ids_is_named_by_its_genes(saved):
    assert ask(saved, pd.DataFrame({"genes": ["A01|A02"]}))["sample_id"].tolist() == ["A01|A02"]


def test_unknown_genes_are_named_or_dropped_and_counted(saved, capsys):
    table = pd.DataFrame({"genes": ["A01|A02", "A01|a-02"]})
    with pytest.raises(InputError, match=r"1 gene\(s\).*'a-02'.*did you mean.*unknown_genes=drop"):
        ask(saved, table)
    assert not (saved.parent / "out.parquet").exists()
    assert len(ask(saved, table, unknown_genes="drop")) == 1
    assert "left out: 1" in capsys.readouterr().out


def test_a_name_that_no_writer_knows_is_refused(saved):
    with pytest.raises(InputError, match="must end in .parquet or .csv"):
        ask(saved, pd.DataFrame({"genes": ["A01"]}), out="out.xlsx")


@pytest.fixture
def fed(pairs, ring, tmp_path) -> Path:
    """A checkpoint of a model that knows genes by two features, x and y, and predicts the sum of x + 10 y."""
    from feature_screen import FeatureScreen

    graph = CellGraph.from_networks(ring)
    table = np.random.default_rng(0).normal(size=(len(graph), 2)).astype(np.float32)
    spec = PerturbationDataModule(pairs, SPLIT, graph, features=GeneFeatures(graph.genes, ("x", "y"), table)).spec
    model = FeatureScreen(spec)
    with torch.no_grad():
        model.effect.weight.copy_(torch.tensor([[1.0, 10.0]]) / spec.scale)
    config = {
        "model": {"_target_": "feature_screen.FeatureScreen"},
        "data": {"_target_": "torchcell.screen.datamodule.PerturbationDataModule"},
    }
    about = {checkpoint.KEY: checkpoint.describe(spec, OmegaConf.create(config))}
    torch.save({"state_dict": model.state_dict(), "epoch": 0, **about}, tmp_path / "fed.ckpt")
    return tmp_path / "fed.ckpt"


def test_rows_may_name_genes_that_are_added_with_their_features(fed):
    known = pd.DataFrame({"genes": ["A01|A02", "Q03"]})
    more = pd.DataFrame({"genes": ["A01|A02", "Q03", "N1", "N2|N1"], "kinds": ["", "", "added", "added|added"]})
    added = pd.DataFrame({"y": [1.0, 0.5], "gene": ["N1", "N2"], "x": [2.0, -4.0]})
    added.to_parquet(fed.parent / "new.parquet")
    before = ask(fed, known)["y"]
    table = ask(fed, more, added_genes=str(fed.parent / "new.parquet")).set_index("genes")["y"]
    np.testing.assert_allclose(table[["A01|A02", "Q03"]], before, rtol=1e-6)
    center = checkpoint.load(fed).spec.center.item()
    np.testing.assert_allclose(table[["N1", "N2|N1"]], [center + 12, center + 12 + 1], rtol=1e-5)
    with pytest.raises(InputError, match="'N1', 'N2'"):
        ask(fed, more)


def test_genes_added_to_a_model_that_knows_none_but_its_own_are_refused(saved):
    (saved.parent / "new.csv").write_text("gene,x\nN1,1\n")
    with pytest.raises(InputError, match="AdditiveScreen knows genes by name only and takes no added ones"):
        ask(saved, pd.DataFrame({"genes": ["N1"]}), added_genes=str(saved.parent / "new.csv"))


@pytest.mark.parametrize("weights", [2**24, 100])
def test_the_genes_looked_at_come_by_rank_also_where_a_batch_is_cut(fed, monkeypatch, weights):
    monkeypatch.setattr("torchcell.predict.WEIGHTS", weights)
    out = fed.parent / "looked.csv"
    asked = pd.DataFrame({"sample_id": ["a", "b", "c"], "genes": ["A01|A02", "Q03", "A05|Q01|A04"]})
    ask(fed, asked, attention_out=str(out), top_genes=4, batch_size=3)
    table = pd.read_csv(out)
    assert table.columns.tolist() == ["sample_id", "genes", "rank", "gene", "weight"]
    assert table["sample_id"].tolist() == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert table["rank"].tolist() == [1, 2, 3, 4] * 3
    model, spec = checkpoint.load(fed).model(["feature_screen"]), checkpoint.load(fed).spec
    for (_, genes), rows in table.groupby(["sample_id", "genes"]):
        query = sum(model.values[spec.genes.index(gene)] for gene in genes.split("|"))
        weight = torch.softmax(model.values @ query, 0)
        best = weight.argsort(descending=True)[:4]
        assert rows["gene"].tolist() == [spec.genes[i] for i in best]
        np.testing.assert_allclose(rows["weight"], weight[best], rtol=1e-4)


def test_a_cell_of_fewer_genes_than_asked_for_is_listed_whole(fed):
    ask(fed, pd.DataFrame({"genes": ["A01"]}), attention_out=str(fed.parent / "looked.parquet"), top_genes=500)
    table = pd.read_parquet(fed.parent / "looked.parquet")
    assert sorted(table["gene"]) == sorted(checkpoint.load(fed).spec.genes)
    assert table["weight"].sum() == pytest.approx(1, abs=1e-5)


def test_an_added_gene_can_be_looked_at(fed):
    (fed.parent / "new.csv").write_text("gene,x,y\nN1,50,50\n")
    changes = {"added_genes": str(fed.parent / "new.csv"), "attention_out": str(fed.parent / "looked.csv")}
    ask(fed, pd.DataFrame({"genes": ["N1"]}), **changes)
    assert pd.read_csv(fed.parent / "looked.csv")["gene"][0] == "N1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention_out": "looked.xlsx"}, "attention_out=looked.xlsx: the name must end"),
        ({"attention_out": "looked.csv", "top_genes": 0}, "top_genes=0: must be 1 or more"),
        ({"attention_out": "same.csv", "out": "same.csv"}, "overwrite the predictions"),
        ({"attention_out": "looked.csv"}, "AdditiveScreen does not tell which genes it looks at"),
    ],
)
def test_a_table_of_looks_that_cannot_be_made_is_refused_and_nothing_is_written(saved, changes, said):
    paths = {key: str(saved.parent / name) for key, name in changes.items() if isinstance(name, str)}
    with pytest.raises(InputError, match=said.replace("attention_out=", "attention_out=.*")):
        ask(saved, pd.DataFrame({"genes": ["A01"]}), **(changes | paths))
    assert {path.suffix for path in saved.parent.iterdir()} <= {".ckpt", ".csv"}
    assert not any((saved.parent / name).exists() for name in ("out.parquet", "looked.csv", "same.csv"))


def run_folder(
    root: Path, name: str, split_hash: str, values: dict[str, float], fold: int = 0, **data: str | list[str] | None
) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    cfg = {"name": "toy", "seed": 0, "split": {"method": "cold_drug", "fold": fold, "n_folds": 5}, "data": data}
    OmegaConf.save(OmegaConf.create(cfg), folder / "config.yaml")
    verdict = {"text": "better than mean", "class": "better", "metric": "pearson", "metric_chosen": False, "missing": 0}
    summary = {"split_hash": split_hash, "converged": True, "epochs": 3, "seconds": 7, "verdict": verdict}
    summary |= {"split": {"method": "cold_drug"}, "checks": {"drug_shuffled": {"correlation": 0.2, "decides": True}}}
    (folder / "metrics.json").write_text(json.dumps(summary))
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


def test_scores_that_evaluate_left_beside_a_checkpoint_are_no_run(tmp_path):
    """It has no config.yaml, and collect ended with a traceback."""
    run_folder(tmp_path, "a", "h1", {"Dango": 0.5, "mean": 0.1})
    beside = tmp_path / "a" / "checkpoints" / "best-evaluated"
    beside.mkdir(parents=True)
    for name in ("metrics.csv", "metrics.json"):
        (beside / name).write_bytes((tmp_path / "a" / name).read_bytes())
    assert collect([tmp_path])["run"].nunique() == 2, "the run and its mean"


def test_comparators_of_a_run_have_runs_of_their_own(tmp_path):
    run_folder(tmp_path, "a", "h1", {"CheMoE": 0.3, "ResponseMLP": 0.5, "mean": 0.1})
    summary = json.loads((tmp_path / "a" / "metrics.json").read_text())
    (tmp_path / "a" / "metrics.json").write_text(
        json.dumps(summary | {"comparators": {"ResponseMLP": {"verdict": "x"}}})
    )
    run_folder(tmp_path, "b", "h1", {"ResponseMLP": 0.5, "mean": 0.1})
    table = collect([tmp_path]).query("level == 'run' and metric == 'pearson'")
    assert table["system"].tolist() == ["CheMoE", "mean", "ResponseMLP", "mean"]
    assert table["rank"].tolist() == [1, 2, 1, 2]


def test_a_metric_that_is_best_when_small_is_ranked_so(tmp_path):
    run_folder(tmp_path, "a", "h1", {"Dango": 0.5, "mean": 0.1})
    table = collect([tmp_path])
    rank = table[table["level"] == "run"].set_index(["system", "metric"])["rank"]
    assert rank["mean", "mae"] == 1
    assert rank["Dango", "pearson"] == 1


def compared(root: Path, name: str, difference: float, n_clusters: int = 12) -> None:
    about = {"low": 0, "high": 0, "se": 0.1, "outcome": "no significant difference", "n_samples": 9, "n_clusters": 2}
    rows = [
        {"role": role, "metric": metric, "baseline": other, "difference": sign * difference} | about
        for role, metric, other, sign in (
            ("primary", "pearson", "mean", 1), ("calibration", "r2", "mean", 1), ("beside", "mae", "mean", -1),
            ("input", "pearson", "drug_shuffled", 2),
        )
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(root / name / "comparisons.csv", index=False)
    drugs = [f"{name}-{i}" for i in range(n_clusters)]
    split = {"sample_id": [*drugs, "z"], "part": [*["test"] * n_clusters, "train"], "group": [*drugs, "both"]}
    pd.DataFrame(split).to_parquet(root / name / "split.parquet", index=False)


def test_all_runs_of_a_config_get_one_verdict(tmp_path, capsys):
    """Each fold alone showed no difference; together they do."""
    for fold in range(4):
        run_folder(tmp_path, f"f{fold}", f"h{fold}", {"Dango": 0.5, "mean": 0.3}, fold)
        compared(tmp_path, f"f{fold}", 0.15)
    assert main([str(tmp_path), "-o", str(tmp_path / "t.md")]) == 0
    said = "All runs together: better than mean by .150 [.052, .248] pearson over 48 samples; r2 better than mean"
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in (tmp_path / "t.md").read_text()
    table = collect([tmp_path])
    rows = table.query("level == 'difference'").set_index("metric")
    assert rows.loc["mae", ["system", "value", "n_runs", "n_splits", "run"]].tolist() == ["mean", -0.15, 4, 4, "over 4"]
    assert rows.loc["pearson", ["class", "role", "n_units"]].tolist() == ["better", "primary", 48]
    assert rows.loc["pearson", "verdict"].endswith("input used")
    assert set(table["level"]) == {"run", "mean", "difference"}


def test_folds_with_few_clusters_in_all_are_not_called_better(tmp_path):
    for fold in range(2):
        run_folder(tmp_path, f"f{fold}", f"h{fold}", {"Dango": 0.5, "mean": 0.3}, fold)
        compared(tmp_path, f"f{fold}", 5.0, n_clusters=3)
    (said,) = collect([tmp_path]).query("level == 'difference'")["verdict"].unique()
    assert said.startswith("no verdict: too few clusters (6 samples, 10 are needed)")


def test_checks_of_the_runs_decide_over_all_of_them(tmp_path):
    """The verdict over folds never saw whether a model used its input."""
    for fold in range(4):
        run_folder(tmp_path, f"f{fold}", f"h{fold}", {"Dango": 0.5, "mean": 0.3}, fold)
        compared(tmp_path, f"f{fold}", 0.5)
        table = pd.read_csv(tmp_path / f"f{fold}" / "comparisons.csv")
        table.loc[table["role"] == "input", "difference"] = -0.5
        table.to_csv(tmp_path / f"f{fold}" / "comparisons.csv", index=False)
    (said,) = collect([tmp_path]).query("level == 'difference'")["verdict"].unique()
    assert said.startswith("no verdict: input ignored (drug)")


def test_runs_get_no_verdict_together_while_one_has_none_or_was_judged_by_the_old_rule(tmp_path):
    for fold in range(2):
        run_folder(tmp_path, f"f{fold}", f"h{fold}", {"Dango": 0.5, "mean": 0.3}, fold)
        compared(tmp_path, f"f{fold}", 0.5)
    path = tmp_path / "f1" / "metrics.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"converged": False, "collapsed": True}))
    (said,) = collect([tmp_path]).query("level == 'difference'")["verdict"].unique()
    assert said.startswith(
        "no verdict: collapsed: in 1 of 2 runs; not converged, the validation metric was still rising"
    )
    assert "1 of 2 runs not converged" in said
    path.write_text(json.dumps(summary | {"verdict": "beats the best baseline on 1 of 4 metrics"}))
    table = collect([tmp_path])
    assert "difference" not in set(table["level"])
    old = table[(table["run"] == str(tmp_path / "f1")) & (table["level"] == "run")]["verdict"].iloc[0]
    assert old == "beats the best baseline on 1 of 4 metrics [by the rule before 2026-11-29]"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"part": "val"}, "no verdict: the part 'val' is what it was chosen by"),
        ({"n_boot": 2}, "no verdict: too few resamples (2, 50 are needed)"),
        (
            {
                "checks": {
                    "starting_weights": {"status": "failed", "finding": "its first weights come from another split"}
                }
            },
            "no verdict: its first weights come from another split",
        ),
        ({"checks": {"input_use": {"status": "not applicable", "finding": "x"}}}, "input use not checked"),
        ({"baseline_departures": ["standard baselines not run: ridge"]}, "standard baselines not run: ridge"),
    ],
)
def test_what_withholds_a_runs_verdict_withholds_that_of_all_runs(tmp_path, changed, said):
    """Several such runs were called better together: collect never looked at what had stopped each of them."""
    for fold in range(4):
        run_folder(tmp_path, f"f{fold}", f"h{fold}", {"Dango": 0.5, "mean": 0.3}, fold)
        compared(tmp_path, f"f{fold}", 0.5)
        path = tmp_path / f"f{fold}" / "metrics.json"
        summary = json.loads(path.read_text())
        checks = summary["checks"] | changed.get("checks", {})
        path.write_text(json.dumps(summary | changed | {"checks": checks}))
    (verdict,) = collect([tmp_path]).query("level == 'difference'")["verdict"].unique()
    assert said in verdict


def test_runs_of_different_configs_are_never_averaged(tmp_path):
    run_folder(tmp_path, "a", "h1", {"Dango": 0.5, "mean": 0.1})
    run_folder(tmp_path, "b", "h1", {"Dango": 0.3, "mean": 0.1})
    cfg = OmegaConf.load(tmp_path / "b" / "config.yaml")
    OmegaConf.save(OmegaConf.merge(cfg, {"data": {"subset": 600}}), tmp_path / "b" / "config.yaml")
    means = collect([tmp_path]).query("level == 'mean' and metric == 'pearson' and system == 'Dango'")
    assert sorted(means["value"]) == [0.3, 0.5]


def test_means_are_taken_within_a_line_first_and_then_over_lines(tmp_path):
    """A line with more folds than another used to weigh more."""
    for fold, value in enumerate((0.2, 0.3, 0.4)):
        run_folder(tmp_path, f"a{fold}", f"a{fold}", {"CheMoE": value, "mean": 0.1}, fold, cell_line="A375")
    run_folder(tmp_path, "p", "p0", {"CheMoE": 0.7, "mean": 0.2}, cell_line="PC3")
    run_folder(tmp_path, "both", "b0", {"CheMoE": 0.9, "mean": 0.2}, cell_line=["A375", "PC3"])
    run_folder(tmp_path, "all", "c0", {"CheMoE": 0.95, "mean": 0.2}, cell_line=None)
    table = collect([tmp_path]).query("system == 'CheMoE' and metric == 'pearson'")
    means = table.query("level == 'mean'").set_index("cell_line")
    assert means.loc[["A375", "PC3", "A375|PC3"], "value"].tolist() == pytest.approx([0.3, 0.7, 0.9])
    assert means.loc["A375", ["n_runs", "n_splits"]].tolist() == [3, 3]
    assert means.loc["A375", "sd"] == pytest.approx(0.1)
    (over,) = table.query("level == 'mean_over_lines'").to_dict("records")
    assert over["value"] == pytest.approx(0.5)
    assert over["sd"] == pytest.approx(np.std([0.3, 0.7], ddof=1))
    assert (over["n_lines"], over["n_runs"], over["run"]) == (2, 4, "mean of 2 lines")
    assert main([str(tmp_path), "-o", str(tmp_path / "t.md")]) == 0
    text = (tmp_path / "t.md").read_text()
    titles = [line.split(", ", 1)[1] for line in text.splitlines() if line.startswith("###")]
    assert sorted(titles[1:]) == [
        "cold_drug, A375, test: 3 run(s)", r"cold_drug, A375\|PC3, test: 1 run(s)", "cold_drug, PC3, test: 1 run(s)",
        "cold_drug, test: 1 run(s)",
    ]  # fmt: skip
    assert titles[0] == "cold_drug, mean over 2 lines, test: 4 run(s)"
    assert text.count("Mean ± sd over 2 lines") == 1


def test_runs_of_one_line_have_no_mean_over_lines(tmp_path):
    run_folder(tmp_path, "a", "h1", {"CheMoE": 0.5}, cell_line="A375")
    run_folder(tmp_path, "b", "h2", {"CheMoE": 0.5}, fold=1, cell_line="A375")
    assert set(collect([tmp_path])["level"]) == {"run", "mean"}


def test_the_markdown_table_holds_means_intervals_and_each_runs_verdict(tmp_path):
    run_folder(tmp_path, "a", "h1", {"Dango": 0.5, "mean": 0.1})
    run_folder(tmp_path, "b", "h1", {"Dango": 0.3, "mean": 0.1})
    assert main([str(tmp_path), "-o", str(tmp_path / "t.md")]) == 0
    text = (tmp_path / "t.md").read_text()
    assert ", cold_drug, test: 2 run(s)" in text
    assert "| Dango | 0.400 ± 0.141 [0.300, 0.500] | 0.400 ± 0.141 [0.300, 0.500] |" in text
    assert text.count("3 epochs in 7 s; better than mean") == 2


def test_collect_says_which_runs_have_not_finished(tmp_path, capsys):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text("name: x\n")
    assert main([str(tmp_path), "-o", str(tmp_path / "t.csv")]) == 1
    assert "1 run(s) have not finished" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), "-o", str(tmp_path / "t.csv")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_collect_takes_a_benchmark_for_its_runs_with_any_model(tmp_path):
    """The command that trains says ``benchmark=hetionet``, and its runs are in ``hetionet_MODEL``."""
    for name in ("hetionet_stack", "hetionet_hgt_embedder", "hetionet_5k_stack", "hetionet_of_mine"):
        (tmp_path / name).mkdir()
    found = [folder.name for folder in _folders(tmp_path / "hetionet")]
    assert found == ["hetionet_hgt_embedder", "hetionet_stack"]
    assert _folders(tmp_path / "hetionet_of_mine") == [tmp_path / "hetionet_of_mine"]
    assert _folders(tmp_path / "nothing") == []
