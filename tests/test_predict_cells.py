"""A checkpoint predicts perturbations of a user's own control cells, genes matched by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import torchcell as tc
from torchcell.cells.datamodule import CellSetDataModule, SetOptions
from torchcell.cells.table import Controls, cells_file, read_perturbations
from torchcell.core.datamodule import RecordDataModule
from torchcell.core.model import Model
from torchcell.core.spec import Spec
from torchcell.evaluation.evaluate import evaluate
from torchcell.io.errors import InputError
from torchcell.predict import predict
from torchcell.training import build as assemble
from torchcell.training import checkpoint
from torchcell.training.entry import conf_dir
from torchcell.training.predict import predict_record

SMALL = [
    "data.record.n_genes=40", "data.record.n_regulators=16", "data.record.n_doubles=6",
    "data.record.cells_per_condition=24", "data.sets.size=8", "model.encoder.dim=16", "model.encoder.heads=1", "model.encoder.layers=1",
]  # fmt: skip


@dataclass(frozen=True)
class Saved:
    """A checkpoint, as a run of ``train`` leaves it."""

    best: Path
    datamodule: RecordDataModule
    model: Model


def configured(name: str, overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(name, overrides)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Saved:
    """Weights that change something; training for real would take most of the tests' time."""
    return saved(tmp_path_factory.mktemp("runs"))


def saved(folder: Path, *overrides: str) -> Saved:
    """A checkpoint of random weights."""
    cfg = configured("config", ["+experiment=simulated_perturbseq", f"paths.runs={folder}", *SMALL, *overrides])
    data = assemble.datamodule(cfg)
    torch.manual_seed(0)
    model = checkpoint.built(cfg.model, data.spec).eval()
    torch.nn.init.normal_(model.readout.weight)
    content = {checkpoint.KEY: checkpoint.describe(data.spec, cfg), "state_dict": model.state_dict(), "epoch": 0}
    torch.save(content, folder / "best.ckpt")
    return Saved(folder / "best.ckpt", data, model)


@pytest.fixture
def asked(tmp_path: Path):
    """Write a list and call ``predict`` on the simulated controls, or on what is given."""

    def call(trained: Saved, rows: str, controls: anndata.AnnData, *further: str, out: str = "out.h5ad"):
        (tmp_path / "list.csv").write_text(rows)
        file = tmp_path / f"controls{len(list(tmp_path.glob('controls*')))}.h5ad"  # an open file can't be written anew
        controls.write_h5ad(file)
        keys = {"ckpt": trained.best, "controls": file, "out": tmp_path / out}
        keys |= {"perturbations": tmp_path / "list.csv"}
        predict(configured("predict", [*(f"{key}={value}" for key, value in keys.items()), *further]))
        if out.endswith(".csv"):
            return pd.read_csv(tmp_path / out)
        return anndata.read_h5ad(tmp_path / out)

    return call


def counts(trained: Saved) -> anndata.AnnData:
    """Raw counts of the run's control cells that predictions start from."""
    record = trained.datamodule.record_whole
    kept = np.setdiff1d(np.flatnonzero(record.cells.is_control), np.flatnonzero(record.control_half))
    cells = record.cells.subset(kept)
    obs = pd.DataFrame({"cell_line": cells.covariates["cell_line"]}, index=cells.sample_id)
    return anndata.AnnData(cells.counts, obs=obs, var=pd.DataFrame(index=cells.genes))


def test_the_runs_own_controls_give_the_runs_own_predictions(trained, asked):
    """Fed with the cells that a run's predictions start from, ``predict`` says what the run's test says."""
    record = trained.datamodule.record("test")
    expected = predict_record(trained.model, trained.datamodule, record, "cpu")
    rows = ["perturbation,cell_line", *(f"{p},{g}" for p, g in zip(record.perturbation, record.group, strict=True))]
    found = asked(trained, "\n".join(rows), counts(trained))
    assert found.obs_names.tolist() == record.sample_id.tolist()
    assert found.obs.perturbation.tolist() == record.perturbation.tolist()
    assert found.obs.group.tolist() == found.obs.cell_line.tolist() == record.group.tolist()
    assert found.var_names.tolist() == list(trained.datamodule.spec.outputs)
    np.testing.assert_allclose(found.layers["control"], record.input_control, atol=1e-5)
    np.testing.assert_allclose(found.X, found.layers["control"] + found.layers["change"], atol=1e-5)
    # The cells are drawn by the condition's name from the same cells in the same order.
    np.testing.assert_allclose(found.X, expected, atol=1e-4)
    asked_for = pd.DataFrame({"perturbation": record.perturbation, "cell_line": record.group})
    in_python = tc.load(trained.best).predict(asked_for, controls=counts(trained))
    np.testing.assert_array_equal(in_python.X, found.X)
    pd.testing.assert_frame_equal(in_python.obs, found.obs, check_dtype=False, check_categorical=False)
    once = tc.load(trained.best).predict(
        record.perturbation[:1].tolist(), controls={"path": counts(trained), "scale": "counts"}
    )
    assert set(once.obs["perturbation"]) == {record.perturbation[0]}
    with pytest.raises(InputError, match="a table is needed here"):
        tc.load(trained.best).predict(counts(trained), controls=counts(trained))
    with pytest.raises(InputError, match="predicts from control cells"):
        tc.load(trained.best).predict(asked_for)


def test_rows_meet_every_group_that_they_fit_and_genes_are_found_by_any_name(trained, asked, tmp_path):
    first, second = trained.datamodule.record("train").perturbation[[0, -1]]
    first = first.split("+")[0]
    controls = counts(trained)
    table = f"perturbation,cell_line\n{first},\n {first.lower()} + {second.split('+')[0]},LINE2\n"
    plain = asked(trained, table, controls)
    assert plain.obs_names.tolist() == [
        f"{first}|LINE1", f"{first}|LINE2", f"{first}+{second.split('+')[0]}|LINE2"
    ]  # fmt: skip
    turned = controls[:, ::-1].copy()
    turned.var_names = [f"old{name}" for name in turned.var_names]
    turned.obs = turned.obs.rename(columns={"cell_line": "type"})
    turned.layers["raw"], turned.X = turned.X, None
    pairs = "\n".join(f"old{gene},{gene}" for gene in controls.var_names)
    (tmp_path / "aliases.csv").write_text(f"alias,gene\n{pairs}\n")
    keys = ["controls_as.columns={cell_line: type}", f"controls_as.aliases={tmp_path / 'aliases.csv'}"]
    again = asked(trained, table, turned, "controls_as.layer=raw", *keys)
    np.testing.assert_allclose(again.X, plain.X, atol=1e-5)
    flat = asked(trained, table, controls, out="out.csv")
    np.testing.assert_allclose(flat[list(plain.var_names)], plain.X, atol=1e-5)
    assert flat.columns[:4].tolist() == ["sample_id", "perturbation", "group", "cell_line"]


def test_cells_that_are_no_controls_are_left_out(trained, asked, capsys):
    controls = counts(trained)
    row = f"perturbation\n{trained.datamodule.genes[0]}\n"
    few = controls[np.r_[0:30, -30:0]].copy()
    plain = asked(trained, row, few)
    spoilt = controls[np.r_[0:30, -30:0, 30:40]].copy()
    spoilt.obs["is_control"] = [True] * 60 + [False] * 10
    np.testing.assert_allclose(asked(trained, row, spoilt).layers["control"], plain.layers["control"], atol=1e-6)
    assert "left out: 10 cells that are no controls" in capsys.readouterr().out


def test_missing_genes_are_refused_or_stand_at_their_training_mean(trained, asked):
    controls, row = counts(trained), f"perturbation\n{trained.datamodule.genes[0]}\n"
    few = controls[:, 3:].copy()
    few.X = few.X.astype(np.float32)
    with pytest.raises(InputError, match="controls. lacks 3 of the model's 40 genes: 'G0001'.*missing_genes=mean"):
        asked(trained, row, few)
    with pytest.warns(UserWarning, match="3 genes that the file lacks"):
        found = asked(trained, row, few, "controls_as.missing_genes=mean")
    mean = trained.datamodule.spec.gene_center[:3]
    np.testing.assert_allclose(found.layers["control"][:, :3], np.tile(mean, (2, 1)), atol=1e-5)


def log_cells(controls: anndata.AnnData, library: float) -> anndata.AnnData:
    values = np.asarray(controls.X.todense() if hasattr(controls.X, "todense") else controls.X, dtype=np.float64)
    made = controls.copy()
    made.X = np.log1p(values / values.sum(1, keepdims=True) * library).astype(np.float32)
    return made


def test_what_the_controls_values_are_is_declared_and_checked(trained, asked):
    controls, row = counts(trained), f"perturbation\n{trained.datamodule.genes[0]}\n"
    plain = asked(trained, row, controls)
    logs = log_cells(controls, 10_000)
    with pytest.raises(InputError, match="values that are no integers.*declare scale=lognorm"):
        asked(trained, row, logs)
    np.testing.assert_allclose(asked(trained, row, logs, "controls_as.scale=lognorm").X, plain.X, atol=1e-4)
    for library in (1_000, 1_000_000):
        with pytest.raises(InputError, match=f"scaled to {library:,} counts.*those of training to 10,000"):
            asked(trained, row, log_cells(controls, library), "controls_as.scale=lognorm")
    with pytest.raises(InputError, match="declared log-normalized, but all values are integers"):
        asked(trained, row, controls, "controls_as.scale=lognorm")


def test_requests_that_can_not_be_met_say_why(trained, asked, tmp_path):
    controls = counts(trained)
    gene = trained.datamodule.genes[0]
    for rows, said in (
        ("gene\nG0001\n", "no column 'perturbation'; it has 'gene'"),
        ("perturbation\nnan\n", "1 sample.s. with no perturbation label, 'nan': 'row 2'"),
        ("perturbation\nG0001+g0001\n", "names a gene twice, 'G0001.g0001': 'row 2'"),
        ("perturbation\nG0001+\n", "genes that the model does not know: 'G0001.'"),
        ("perturbation\nG9999\n", "genes that the model does not know: 'G9999'"),
        (f"perturbation,cell_line\n{gene},K562\n", "no control cells: 'row 2 .K562.'; the controls are of 'LINE1'"),
        (f"perturbation\n{gene}\n{gene}\n", "used twice: 'G0001|LINE1'"),
    ):
        with pytest.raises(InputError, match=said.replace("|", "[|]")):
            asked(trained, rows, controls)
    bare = controls.copy()
    del bare.obs["cell_line"]
    with pytest.raises(InputError, match="no column 'cell_line'"):
        asked(trained, f"perturbation\n{gene}\n", bare)
    dropped = asked(trained, f"perturbation\nG9999\n{gene}\n", controls, "unknown_genes=drop")
    assert set(dropped.obs.perturbation) == {gene}
    without = [f"ckpt={trained.best}", f"perturbations={tmp_path / 'list.csv'}"]
    with pytest.raises(InputError, match="predicts from control cells: name them with controls="):
        predict(configured("predict", [*without, f"out={tmp_path / 'x.h5ad'}"]))
    with pytest.raises(InputError, match="have fixed names; rename them in the file .*controls_as.columns"):
        predict(configured("predict", [*without, f"out={tmp_path / 'x.h5ad'}", "columns={perturbation: guide}"]))


def test_a_gene_that_only_the_networks_know_can_be_asked(asked, tmp_path):
    """The README said so while ``predict`` refused every gene that is neither measured nor perturbed in training."""
    run = saved(tmp_path, "data.n_genes=8")
    spec = run.datamodule.spec
    further = sorted(set(run.datamodule.networks.genes.tolist()) - set(spec.genes))
    assert list(spec.network_genes.genes) == further
    gene, own = further[3], run.datamodule.record("train").perturbation[0].split("+")[0]
    controls = counts(run)
    plain = asked(run, f"perturbation\n{own}\n", controls)
    found = asked(run, f"perturbation\n{own}\n{gene.lower()}\n{own}+{gene}\n", controls)
    assert [label.split("|")[0] for label in found.obs_names] == [
        own,
        own,
        gene,
        gene,
        f"{own}+{gene}",
        f"{own}+{gene}",
    ]
    np.testing.assert_allclose(found.X[:2], plain.X, atol=1e-5)  # other rows stay as they were
    assert np.abs(found.layers["change"][2:4]).max() > 0
    assert (found.obs["note"].str.contains(f"never perturbed in training: {gene}") == [False] * 2 + [True] * 4).all()
    wider = CellSetDataModule.extend_spec(replace(run.datamodule.record("train"), perturbation=np.array([gene])), spec)
    assert wider.genes == (*spec.genes, gene)
    assert wider.gene_features is not None
    np.testing.assert_array_equal(wider.gene_features.values[-1], run.datamodule.features.aligned([gene])[0])
    with pytest.raises(InputError, match="genes that the model does not know: 'G9999'"):
        asked(run, "perturbation\nG9999\n", controls)


def test_energy_distance_is_scored_for_every_system_and_undefined_in_pseudobulk(trained):
    data, part = trained.datamodule, trained.datamodule.record("test")
    systems = {"Model": part.target, "no_change": part.input_control, "away": part.input_control + 2.0}
    (results,) = data.results("test", {"": systems}, "Model", None)
    table = evaluate(results, n_boot=5).table.set_index(["metric", "system"]).value["e_distance"]
    assert table["Model"] < table["no_change"] < table["away"]
    flat = CellSetDataModule(data.record_whole, {"method": "unseen_perturbation"}, sets=SetOptions(pseudobulk=True))
    (results,) = flat.results("test", {"": systems}, "Model", None)
    table = evaluate(results, n_boot=5).table.set_index(["metric", "system"])
    assert table.value["e_distance"].isna().all()
    assert (table.n_undefined["e_distance"] == len(part)).all()


def test_predictions_are_exported_as_the_cells_that_cell_eval_reads(trained, tmp_path):
    data, part = trained.datamodule, trained.datamodule.record("test")
    paths = data.export("test", part.input_control + 1.0, tmp_path / "pair")
    real, predicted = (anndata.read_h5ad(path) for path in paths)
    assert (real.obs.target_gene.value_counts()[part.perturbation] >= 2 * 24).all()
    control = predicted.obs.target_gene == "non-targeting"
    assert set(predicted.obs.target_gene[~control]) == set(part.perturbation)
    gap = predicted[~control].X.mean() - predicted[control].X.mean()
    assert gap == pytest.approx(1.0, abs=0.1)
    with pytest.raises(InputError, match="cell_eval_out is for single cells"):
        RecordDataModule.export(data, "test", part.target, tmp_path)


def test_the_control_words_of_training_travel_in_the_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"perturbation": np.repeat(["NT1", "safe", "A", "safe+B", "C", "D", "E", "F"], 24)})
    obs.index = obs.index.astype(str)
    X = rng.poisson(3.0, (len(obs), 8)).astype(np.float32)
    path = tmp_path / "cells.h5ad"
    anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=[*"ABCDEFGH"])).write_h5ad(path)
    record = cells_file(path, "counts", control=["NT1", "safe"])
    spec = CellSetDataModule(record, {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}).spec
    spec = Spec.from_plain(spec.to_plain())
    assert spec.control_words == ("nt1", "safe")
    anndata.AnnData(X[:24], obs=obs[:24], var=pd.DataFrame(index=[*"ABCDEFGH"])).write_h5ad(tmp_path / "controls.h5ad")
    (tmp_path / "list.csv").write_text("perturbation\nsafe+C\n")
    controls = Controls(tmp_path / "controls.h5ad")
    assert read_perturbations(str(tmp_path / "list.csv"), spec, controls).perturbation.tolist() == ["C"]
    (tmp_path / "list.csv").write_text("perturbation\nctrl+C\n")
    plain = read_perturbations(str(tmp_path / "list.csv"), replace(spec, control_words=()), controls)
    assert plain.perturbation.tolist() == ["C"], "of data without words of their own the usual ones"
