"""What a baseline was fitted to is saved with the run, and answers a user's request as it answered in the run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tests.small_runs import CELLS, GENE_SETS, RESPONSE, SCREEN, composed
from torchcell.core.datamodule import RecordDataModule
from torchcell.core.predictor import Predictor
from torchcell.io.errors import InputError
from torchcell.io.state import plain_of, read_state, write_state
from torchcell.predict import predict
from torchcell.train import Trained, train
from torchcell.training import build
from torchcell.training.entry import conf_dir

TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "screen": ("screen", (*SCREEN, "model.encoder.dim=16", "model.readout.heads=1")),
    "response": ("response", (*RESPONSE, "model.genes.width=16", "model.expert.hidden=[16,8]")),
    "cells": ("cells", (*CELLS, *GENE_SETS)),
    "links": (
        "links",
        (
            "+experiment=simulated_hgt", "data.record.n_genes=60", "data.record.n_compounds=40",
            "data.record.n_diseases=30", "data.record.n_communities=5", "model.encoder.embedding_dim=16",
            "model.encoder.dim=16", "model.encoder.heads=1", "model.prior=null", "model.sampling.edges=50",
            "data.batch_size=16",
        ),
    ),
}  # fmt: skip
"""File of the standard baselines, and a small run."""
QUICK: dict[str, dict[str, Any]] = {
    "low_rank_als": {"rank": 16, "penalties": [4.0], "n_iter": 2},
    "embedding_sum_mlp": {"max_epochs": 3},
    "gradient_boosting": {"max_iter": 20},
    "path_features": {"penalties": [0.1], "most_edges": 300},
    "distmult": {"dim": 16, "adam": {"steps": 40, "check_every": 20}},
    "gaussian_process": {"most": 100},
}
NAMES = [
    pytest.param(task, str(name), id=f"{task}-{name}")
    for task, (file, _) in TASKS.items()
    for name in OmegaConf.load(conf_dir() / "baselines" / f"{file}.yaml")
]


def quick(configs: DictConfig) -> DictConfig:
    """The same baselines, those that take long with less to do."""
    return OmegaConf.merge(configs, {name: changes for name, changes in QUICK.items() if name in configs})


@pytest.fixture(scope="module")
def data_of() -> Callable[[str], tuple[DictConfig, RecordDataModule]]:
    made: dict[str, tuple[DictConfig, RecordDataModule]] = {}

    def of(task: str) -> tuple[DictConfig, RecordDataModule]:
        if task not in made:
            file, overrides = TASKS[task]
            configs = quick(OmegaConf.load(conf_dir() / "baselines" / f"{file}.yaml"))
            made[task] = configs, build.datamodule(composed(*overrides))
        return made[task]

    return of


@pytest.mark.parametrize(("task", "name"), NAMES)
def test_a_state_from_a_file_predicts_the_same_to_the_last_bit(task, name, data_of, tmp_path):
    configs, data = data_of(task)
    train_part, val, test = (data.record(part) for part in ("train", "val", "test"))
    fitted = instantiate(configs[name]).fit(train_part, val, data.graph)
    write_state(tmp_path / "state.npz", fitted.state_dict())
    again = instantiate(configs[name]).load_state_dict(read_state(tmp_path / "state.npz"), data.graph_of(data.spec))
    expected = fitted.predict(test.blind())
    assert again.predict(test.blind()).tobytes() == expected.tobytes()
    assert again.predict(train_part.blind()).tobytes() == fitted.predict(train_part.blind()).tobytes()
    write_state(tmp_path / "again.npz", again.state_dict())
    assert (tmp_path / "again.npz").stat().st_size == (tmp_path / "state.npz").stat().st_size


@dataclass(frozen=True)
class Run:
    """A short run with all standard baselines, and its test samples as a request."""

    trained: Trained
    request: dict[str, str]

    @property
    def folder(self) -> Path:
        return self.trained.folder.path

    def ask(self, **changes: Any) -> pd.DataFrame:
        keys = {"ckpt": self.folder / "checkpoints" / "best.ckpt", **self.request, **changes}
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return predict(compose("predict", [f"{key}={value}" for key, value in keys.items()]))


@pytest.fixture(scope="module", params=list(TASKS))
def run(request, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp(request.param)
    cfg = composed(*TASKS[request.param][1], "trainer.max_epochs=1", "evaluation.n_boot=20", f"paths.runs={folder}")
    cfg.baselines = quick(cfg.baselines)
    trained = train(cfg)
    return Run(trained, request_of(request.param, trained.datamodule, folder) | {"out": str(folder / "out.parquet")})


def request_of(task: str, data: RecordDataModule, folder: Path) -> dict[str, str]:
    """The test samples as a user would ask for them."""
    record = data.record("test")
    if task == "response":
        table = record.to_anndata()
        table.obs = table.obs[["perturbation", "cell_line", "dose_value", "time"]]
        table.X = np.zeros(table.shape, dtype=np.float32)
        table.write_h5ad(folder / "asked.h5ad")
        return {"perturbations": str(folder / "asked.h5ad")}
    if task == "screen":
        rows = pd.DataFrame({"sample_id": record.sample_id, "genes": ["|".join(genes) for genes in record.sets()]})
        rows = rows.assign(**{role: record.columns[role] for role in ("query", "array") if role in record.columns})
    elif task == "links":
        ends = record.node_id[record.source_index], record.node_id[record.target_index]
        rows = pd.DataFrame({"source": ends[0], "target": ends[1], "edge_type": record.edge_type})
    else:
        rows = pd.DataFrame({"perturbation": record.perturbation, "cell_line": record.group})
    rows.to_csv(folder / "asked.csv", index=False)
    found = {"perturbations": str(folder / "asked.csv")}
    if task == "cells":
        cells = record.cells.subset(np.unique(np.concatenate([record.input_cells(i) for i in range(len(record))])))
        obs = pd.DataFrame({"cell_line": cells.covariates["cell_line"]}, index=cells.sample_id)
        controls = anndata.AnnData(cells.counts, obs=obs, var=pd.DataFrame(index=cells.genes))
        controls.write_h5ad(folder / "controls.h5ad")
        found["controls"] = str(folder / "controls.h5ad")
    return found


def column_of(run: Run, system: str) -> np.ndarray:
    """What a system predicted of the test samples within the run [n, T]."""
    if (run.folder / "predictions.h5ad").is_file():
        return np.asarray(anndata.read_h5ad(run.folder / "predictions.h5ad").layers[system])
    table = pd.read_parquet(run.folder / "predictions.parquet")
    outputs, ids = run.trained.datamodule.spec.outputs, run.trained.datamodule.record("test").sample_id
    wide = pd.DataFrame({name: rows.set_index("sample_id")[system] for name, rows in table.groupby("target")})
    return wide.loc[ids, list(outputs)].to_numpy()


def test_every_baseline_of_a_run_answers_a_request_as_it_did_in_the_run(run):
    names = [name for name, config in OmegaConf.load(run.folder / "config.yaml").baselines.items() if config]
    assert sorted(file.stem for file in (run.folder / "baselines").iterdir()) == sorted(names)
    outputs = list(run.trained.datamodule.spec.outputs)
    for name in names:
        table = run.ask(system=name)
        expected = column_of(run, name)
        found = table["score"].to_numpy() if "score" in table else table[outputs].to_numpy()
        np.testing.assert_array_equal(found, np.nanmax(expected, axis=1) if "score" in table else expected, name)
        says = table["note"].str.contains(f"{name} has none").to_numpy()
        np.testing.assert_array_equal(says, np.isnan(expected).any(1), name)
    assert run.ask(system="model").columns.tolist() == table.columns.tolist()


def test_an_unknown_system_is_one_error_that_lists_those_there_are(run):
    with pytest.raises(InputError, match="system=ridge: .* has no such system; it has model, ") as raised:
        run.ask(system="ridge")
    assert all(file.stem in str(raised.value) for file in (run.folder / "baselines").iterdir())


@pytest.fixture
def screen_run(tmp_path) -> Run:
    overrides = (*TASKS["screen"][1], "trainer.max_epochs=1", "evaluation.n_boot=20", f"paths.runs={tmp_path}")
    cfg = composed(*overrides)
    cfg.baselines = {"mean": cfg.baselines.mean, "additive_ridge": cfg.baselines.additive_ridge}
    trained = train(cfg)
    return Run(trained, request_of("screen", trained.datamodule, tmp_path) | {"out": str(tmp_path / "out.csv")})


def test_a_run_whose_fit_came_from_the_cache_gets_its_file_and_a_better_system_is_named(screen_run, tmp_path, capsys):
    file = screen_run.folder / "baselines" / "additive_ridge.npz"
    first = file.read_bytes()
    file.write_bytes(b"weaker")  # in place: with a hard link to the cache all runs of the split would meet that
    cfg = OmegaConf.merge(OmegaConf.load(screen_run.folder / "config.yaml"), {"seed": 1})
    capsys.readouterr()
    second = train(cfg)
    assert "additive_ridge ..." not in capsys.readouterr().err, "the fit is the cache's"
    assert (second.folder.path / "baselines" / "additive_ridge.npz").read_bytes() == first
    file.write_bytes(first)
    screen_run.ask()
    said = [line for line in capsys.readouterr().out.splitlines() if "was better on test" in line]
    assert len(said) == 1, "one epoch does not beat the ridge"
    assert said[0].startswith("additive_ridge was better on test: pearson ")
    assert said[0].endswith("; system=additive_ridge predicts with it")
    screen_run.ask(system="additive_ridge")
    said = capsys.readouterr().out
    assert "was better" not in said
    # the verdict is the model's: of a baseline its own score is said
    assert "verdict" not in said
    assert "additive_ridge on test: pearson " in said


def test_a_file_that_is_missing_damaged_or_of_other_data_is_one_error(screen_run):
    file = screen_run.folder / "baselines" / "mean.npz"
    content = read_state(file)
    for about, said in (({"split_hash": "another"}, "another split"), ({"format": 1}, "")):
        file.unlink()
        write_state(file, {"about": content["about"] | about, "state": {} if not said else content["state"]})
        with pytest.raises(InputError, match=said or "this version can't read it"):
            screen_run.ask(system="mean")
    file.unlink()
    file.write_bytes(b"no archive")
    with pytest.raises(InputError, match="is damaged"):
        screen_run.ask(system="mean")
    file.unlink()
    with pytest.raises(InputError, match=r"has no file of it, .*torchcell.evaluate ckpt="):
        screen_run.ask(system="mean")
    shutil.rmtree(file.parent)
    with pytest.raises(InputError, match="it has model only"):
        screen_run.ask(system="nothing")


@pytest.mark.parametrize("key", ["added_genes", "attention_out"])
def test_what_only_the_model_can_do_is_refused_of_a_baseline(screen_run, key, tmp_path):
    with pytest.raises(InputError, match=f"{key}=.* is for the model, not for system=mean"):
        screen_run.ask(system="mean", **{key: tmp_path / "file.csv"})


class Unkept(Predictor):
    """A baseline whose state is no plain value."""

    name = "unkept"
    held: object

    def fit(self, train: Any, val: Any, graph: Any) -> Unkept:
        self.held = object()
        return self

    def predict(self, record: Any) -> np.ndarray:
        return np.zeros((len(record), 1), np.float32)


def test_a_state_without_a_plain_form_is_said_and_costs_the_run_nothing(data_of, capsys, tmp_path):
    from torchcell.training.baselines import fit_baselines

    found = fit_baselines(
        data_of("screen")[1], OmegaConf.create({"unkept": {"_target_": f"{__name__}.Unkept"}}), "test"
    )
    assert (found.predictions[""]["unkept"] == 0).all()
    assert found.write(tmp_path) == []
    assert "can't be saved" in capsys.readouterr().err
    with pytest.raises(TypeError, match="no plain form of a object"):
        plain_of(object())


def test_an_array_that_stands_twice_is_stored_once(tmp_path):
    values = np.random.default_rng(0).normal(size=10_000)
    write_state(tmp_path / "twice.npz", {"a": values, "b": [values, {"c": values}], "d": np.float32(0.1), "e": None})
    assert (tmp_path / "twice.npz").stat().st_size < 1.1 * values.nbytes
    found = read_state(tmp_path / "twice.npz")
    assert found["b"][1]["c"].tobytes() == values.tobytes()
    assert isinstance(found["d"], np.float32)
    with pytest.raises(InputError, match="objects"):
        write_state(tmp_path / "objects.npz", {"a": np.array([object()])})
