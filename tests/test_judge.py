"""Predictions of other programs are judged as a run is: matched by what was perturbed, beside baselines, with checks."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from torchcell.collect import collect
from torchcell.core.foreign import Foreign, ForeignColumns, matched
from torchcell.data import main as data_command
from torchcell.drug_response.foreign import others as response_others
from torchcell.evaluate import judge_command
from torchcell.io.errors import InputError
from torchcell.io.in_memory import InMemory
from torchcell.screen.foreign import keys as screen_keys
from torchcell.screen.foreign import read as read_screen_predictions
from torchcell.screen.simulate import simulated_screen
from torchcell.training.entry import composed
from torchcell.training.judge import Judgment, judge

FEW = ("baselines=none", "+baselines.mean._target_=torchcell.screen.baselines.Mean")
PLAIN = ForeignColumns()


@pytest.fixture(scope="module")
def screen():
    return simulated_screen(n_genes=540, n_sets=400, seed=0)


def _table(screen) -> pd.DataFrame:
    genes = ["|".join(one) for one in screen.sets()]
    return pd.DataFrame({"genes": genes, "prediction": screen.phenotype[:, 0]})


def _judge(table: object, tmp_path: Path, *overrides: str, name: str = "theirs"):
    cfg = composed(
        "config", ["data.record.n_sets=400", "evaluation.n_boot=60", *FEW, f"paths.runs={tmp_path}", *overrides]
    )
    return judge(cfg, Judgment(InMemory(table, "predictions"), PLAIN, name))


def test_the_truth_with_noise_is_better_than_the_mean_and_uses_its_input(screen, tmp_path, capsys):
    table = _table(screen)
    table["prediction"] += np.random.default_rng(0).normal(0, 0.02, len(table))
    scored, folder = _judge(table.sample(frac=1, random_state=0), tmp_path)
    verdict = scored.evaluation.verdict
    assert verdict.kind == "better"
    assert "input used" in verdict.text
    assert "predictions of others: training not seen" in verdict.text
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["model"] == "theirs"
    assert summary["checks"]["perturbation_shuffled"]["status"] == "ok"
    page = (folder / "report.html").read_text()
    assert "torchcell.reproduce" not in page, "there is nothing to run again"
    assert "predictions of each, judged" in page
    assert "predictions are for samples of other parts, and were left out" in capsys.readouterr().out


def test_a_copy_of_the_measured_values_gets_no_verdict_alone_or_pooled(screen, tmp_path):
    for fold in (0, 1):
        scored, _ = _judge(_table(screen), tmp_path, f"split.fold={fold}")
        assert scored.evaluation.verdict.kind == "no verdict"
        assert "its predictions are the measured values of the part 'test'" in scored.evaluation.verdict.text
    (line,) = collect([tmp_path]).query("level == 'difference'")["verdict"].unique()
    assert "its predictions are the measured values" in line
    assert "predictions of others: training not seen" in line


def test_a_constant_gets_no_verdict(screen, tmp_path):
    scored, _ = _judge(_table(screen).assign(prediction=0.1), tmp_path)
    assert "collapsed: its predictions are nearly constant" in scored.evaluation.verdict.text


def test_what_is_missing_withholds_the_verdict_and_is_named(screen, tmp_path, capsys):
    scored, _ = _judge(_table(screen).iloc[::2], tmp_path)
    assert "it has no prediction for" in scored.evaluation.verdict.text
    assert "no prediction for" in capsys.readouterr().out


def test_the_order_of_genes_and_their_types_do_not_matter_and_other_types_are_other_perturbations(screen):
    table = _table(screen)
    turned = table.assign(genes=["|".join(reversed(one.split("|"))) for one in table["genes"]])
    found = read_screen_predictions(InMemory(turned, "p"), screen, PLAIN)
    assert sorted(found.key) == sorted(screen_keys(screen))
    added = read_screen_predictions(
        InMemory(table.assign(kinds=["|".join("added" for _ in one.split("|")) for one in table["genes"]]), "p"),
        screen,
        PLAIN,
    )
    assert not set(added.key) & set(found.key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: pd.concat([table, table[:2]]),
            "2 sample.s. with a gene set that an earlier row has too: 'row 402', 'row 403'",
        ),
        (lambda table: table.assign(prediction=[np.inf, *table["prediction"][1:]]), "not finite"),
        (
            lambda table: table.rename(columns={"prediction": "score"}),
            "has no column 'gene_interaction'; it has 'genes', 'score'",
        ),
        (lambda table: table.assign(genes="a_" + table["genes"]), "has no prediction for this part"),
    ],
)
def test_what_cannot_be_judged_is_one_line(screen, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        _judge(change(_table(screen)), tmp_path)
    assert not list(tmp_path.rglob("metrics.json"))


def test_a_repeated_perturbation_shares_its_prediction():
    found = Foreign(np.array(["b", "a", "x"]), np.float32([[2], [1], [9]]))
    predicted, notes = matched(found, np.array(["a", "b", "a", "c"]), np.array([0, 2, 3]), "file")
    np.testing.assert_array_equal(predicted, np.float32([[1], [1], [np.nan]]))
    assert notes[0] == "no prediction for 1 of 2 perturbations of the part: 'c'"
    assert notes[1] == "1 predictions are for samples of other parts, and were left out"
    assert notes[2] == "1 predictions are for perturbations that the data do not have: 'x'"


def test_the_command_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert judge_command(["predictions=gone.csv", "benchmark=simulated_cell", "data.record.n_sets=400"]) == 1
    assert "error: predictions=gone.csv: no such file" in capsys.readouterr().err
    assert judge_command(["predictions=gone.csv", "benchmark=simulated_cel"]) == 1
    assert "simulated_cell" in capsys.readouterr().err
    assert judge_command(["predictions=gone.csv", "benchmark=simulated_knowledge_graph"]) == 1
    assert "every pair of nodes is ranked" in capsys.readouterr().err


def test_a_name_of_a_baseline_is_refused(screen, tmp_path):
    with pytest.raises(
        InputError, match="name=mean: 'mean', 'network_alone', 'replicate_ceiling' are systems of the table"
    ):
        _judge(_table(screen), tmp_path, name="mean")


def test_the_split_goes_out_and_predictions_made_on_it_come_back(screen, tmp_path, capsys):
    out = tmp_path / "export"
    given = ["export", "benchmark=simulated_cell", "data.record.n_sets=400", "split.fold=1"]
    assert data_command([*given, f"out={out}"]) == 0
    assert data_command([*given, f"out={out}"]) == 1
    assert "holds files; name a new folder" in capsys.readouterr().err
    table = pd.read_csv(out / "data.csv")
    assert set(table["split"]) == {"train", "val", "test"}
    test = table[table["split"] == "test"][["genes", "gene_interaction"]]
    cfg = composed("config", [*given[1:], *FEW, f"paths.runs={tmp_path}", "evaluation.n_boot=60"])
    scored, folder = judge(cfg, Judgment(InMemory(test, "predictions"), PLAIN, "theirs", benchmark="simulated_cell"))
    assert len(scored.results) == len(test)
    assert folder.parent.name == "simulated_cell"
    rows = collect([tmp_path]).query("level == 'run' and system == 'theirs'")
    assert set(rows["experiment"]) == {"simulated_cell"}


def test_exported_cells_hide_the_controls_that_measured_changes_are_taken_from(tmp_path):
    assert data_command(["export", "benchmark=simulated_perturbseq", f"out={tmp_path / 'x'}"]) == 0
    obs = anndata.read_h5ad(tmp_path / "x" / "data.h5ad").obs
    of_control = obs[obs["perturbation"] == "control"]["split"].astype(str).value_counts()
    assert set(of_control.index) == {"control", "unused"}
    assert abs(of_control["control"] - of_control["unused"]) <= obs["cell_type"].nunique()
    split = tomllib.loads((tmp_path / "x" / "cell_load.toml").read_text())
    for group, parts in split["fewshot"].items():
        here = obs[obs["cell_type"] == group.partition(".")[2]]
        assert set(parts["test"]) == set(here[here["split"] == "test"]["perturbation"])


def _cells(changes: bool = False) -> tuple[list[str], anndata.AnnData]:
    """Predicted cells of the simulated perturb-seq: the true means with noise, two cells a condition, and controls."""
    from hydra.utils import instantiate

    overrides = ["benchmark=simulated_perturbseq", "evaluation.n_boot=60", "baselines=none"]
    record = instantiate(composed("config", overrides).data.record)
    rng = np.random.default_rng(0)
    means = record.target - record.input_control if changes else record.target
    rows = np.repeat(np.arange(len(record)), 2)
    values = np.vstack([means[rows] + rng.normal(0, 0.01, (len(rows), means.shape[1])), np.ones((1, means.shape[1]))])
    lines = [record.group[i] for i in rows] + [record.group[0]]
    labels = [f"{record.perturbation[i]}+ctrl" for i in rows] + ["ctrl"]
    obs = pd.DataFrame({"condition": labels, record.covariates[0]: lines}, index=[f"c{i}" for i in range(len(labels))])
    var = pd.DataFrame(index=[*record.genes[::-1], "FURTHER"])
    flipped = np.hstack([values[:, ::-1], np.zeros((len(values), 1))]).astype(np.float32)
    return overrides, anndata.AnnData(flipped, obs, var)


@pytest.mark.parametrize("changes", [False, True])
def test_predicted_cells_are_averaged_and_their_genes_matched_by_name(tmp_path, capsys, changes):
    overrides, adata = _cells(changes)
    cfg = composed("config", [*overrides, f"paths.runs={tmp_path}"])
    how = ForeignColumns(values="change" if changes else "level")
    scored, folder = judge(cfg, Judgment(InMemory(adata, "cells"), how, "theirs"))
    table = scored.evaluation.table.set_index(["system", "metric"])["value"]
    assert table["theirs", "pearson_delta_perturbed"] > 0.95
    said = capsys.readouterr().out
    assert "1 predicted control cells were left out" in said
    assert "1 genes of the file are not scored" in said
    assert (folder / "predictions.h5ad").is_file()


@pytest.mark.parametrize(("changes", "values"), [(False, "change"), (True, "level")])
def test_values_that_are_not_what_is_said_are_refused(tmp_path, changes, values):
    overrides, adata = _cells(changes)
    if not changes:
        adata.X = np.abs(adata.X)
    cfg = composed("config", [*overrides, f"paths.runs={tmp_path}"])
    with pytest.raises(InputError, match=f"say values={'level' if values == 'change' else 'change'}"):
        judge(cfg, Judgment(InMemory(adata, "cells"), ForeignColumns(values=values), "theirs"))


def test_predicted_treatments_are_matched_by_line_drug_dose_and_time(tmp_path):
    from hydra.utils import instantiate

    overrides = ["benchmark=simulated_response", "evaluation.n_boot=60", "baselines=none", "data.record.n_drugs=40"]
    cfg = composed("config", [*overrides, f"paths.runs={tmp_path}"])
    record = instantiate(cfg.data.record)
    obs = pd.DataFrame({"drug": record.drug, "cell_line": record.cell_line, "dose_value": record.dose_value})
    obs["time"] = record.time
    first = ~obs.duplicated()
    adata = anndata.AnnData(record.treated[first], obs[first].astype({"drug": str}), pd.DataFrame(index=record.genes))
    adata.obs_names = [f"t{i}" for i in range(adata.n_obs)]
    scored, _ = judge(cfg, Judgment(InMemory(adata, "treatments"), PLAIN, "theirs"))
    table = scored.evaluation.table.set_index(["system", "metric"])["value"]
    assert table["theirs", "pearson_delta"] > 0.5
    twice = anndata.concat([adata, adata[:1]])
    twice.obs_names_make_unique()
    with pytest.raises(InputError, match="1 perturbations have two rows or more"):
        judge(cfg, Judgment(InMemory(twice, "treatments"), PLAIN, "theirs"))


def test_what_a_line_alone_predicts_is_not_taken_for_use_of_the_drug(tmp_path):
    """Exchanged among all samples, the change of a line went to other lines, and the score fell though no drug was read."""
    from hydra.utils import instantiate

    overrides = ["benchmark=simulated_response", "evaluation.n_boot=60", "baselines=none", "data.record.n_drugs=40"]
    cfg = composed("config", [*overrides, f"paths.runs={tmp_path}"])
    record = instantiate(cfg.data.record)
    obs = pd.DataFrame({"drug": record.drug, "cell_line": record.cell_line, "dose_value": record.dose_value})
    obs["time"] = record.time
    mean = np.stack([record.treated[record.cell_line == line].mean(axis=0) for line in record.cell_line])
    first = ~obs.duplicated()
    adata = anndata.AnnData(mean[first], obs[first].astype({"drug": str}), pd.DataFrame(index=record.genes))
    adata.obs_names = [f"t{i}" for i in range(adata.n_obs)]
    scored, folder = judge(cfg, Judgment(InMemory(adata, "treatments"), PLAIN, "lines"))
    assert "input ignored (drug with dose)" in scored.evaluation.verdict.text
    everyone = json.loads((folder / "metrics.json").read_text())["checks"]["drug_with_dose_shuffled"]
    assert everyone["status"] == "failed"
    assert len(set(response_others(record, "drug_with_dose").tolist())) == len(set(record.cell_line.tolist()))
    assert len(set(response_others(record, "line_with_basal").tolist())) > 40
