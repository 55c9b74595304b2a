"""Data that changed behind an unchanged config: no cache, run or table may pass the old for the new."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from torchcell.cells.baselines import PerturbedMean
from torchcell.cells.datamodule import CellSetDataModule
from torchcell.cells.simulate import simulate_cells
from torchcell.cells.table import MatrixOptions, cells_file
from torchcell.core.split import Split
from torchcell.drug_response.datamodule import ResponseDataModule
from torchcell.drug_response.molecules import Morgan
from torchcell.drug_response.simulate import simulate_response
from torchcell.evaluate import evaluate
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.features import joined_features, network_features, table_features
from torchcell.graph.network import Network
from torchcell.io.errors import InputError
from torchcell.screen.datamodule import PerturbationDataModule
from torchcell.screen.table import read_screen
from torchcell.train import Trained, train
from torchcell.training import checkpoint
from torchcell.training.baselines import fit_baselines
from torchcell.training.data_changes import other_indices, other_values
from torchcell.training.entry import conf_dir
from torchcell.training.run_folder import config_hash

SPLIT = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


def exchange_counts(path: Path) -> None:
    """Other counts in the same file: same path, size of the matrix, names and time of change."""
    stat, adata = path.stat(), anndata.read_h5ad(path)
    adata.X.data[:] = np.random.default_rng(1).permutation(adata.X.data)
    other = path.with_name("other.h5ad")
    adata.write_h5ad(other)
    other.replace(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("backed", [False, True])
def test_a_table_never_shows_the_baseline_of_a_file_that_was_exchanged(tmp_path, monkeypatch, backed):
    """The cache knew a sparse matrix by how it is printed and one on disk by its path: the second run showed the first
    file's perturbed_mean beside its own measured values.
    """
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path / "cache"))
    path, cells = tmp_path / "cells.h5ad", simulate_cells(n_singles=12, n_doubles=0).cells
    cells.to_anndata().write_h5ad(path)
    config = {"perturbed_mean": OmegaConf.create({"_target_": "torchcell.cells.baselines.PerturbedMean"})}

    def tabled() -> tuple[np.ndarray, np.ndarray]:
        data = CellSetDataModule(
            cells_file(path, "counts", covariates=("cell_line",), matrix=MatrixOptions(backed=backed)), SPLIT
        )
        fitted = PerturbedMean().fit(data.record("train"), data.record("val"), None)
        shown = fit_baselines(data, config, "test").predictions[""]["perturbed_mean"]
        return shown, np.asarray(fitted.predict(data.record("test").blind()), dtype=np.float32)

    first, expected = tabled()
    np.testing.assert_array_equal(first, expected)
    exchange_counts(path)
    second, expected = tabled()
    np.testing.assert_array_equal(second, expected)
    assert np.abs(second - first).max() > 0.1
    assert len(list((tmp_path / "cache" / "baselines").glob("*.npz"))) == 2


# Runs: checkpoint, record and split know their data ------------------------------------------------

SMALL = (
    "data=screen",
    "graph=edge_list",
    "split=gene_disjoint_any",
    "baselines=none",
    "logger=csv",
    "model=dango",
    "model.encoder.dim=8",
    "model.readout.heads=1",
    "trainer.max_epochs=2",
    "evaluation.n_boot=20",
    "name=mine",
)


def write_screen(folder: Path, shift: float = 0.0) -> None:
    draw = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(30)]
    sets = sorted({"|".join(sorted(draw.choice(genes, 2, replace=False))) for _ in range(200)})
    table = pd.DataFrame({"genes": sets, "fitness": draw.normal(size=len(sets))})
    table.loc[3, "fitness"] += shift
    table.to_csv(folder / "screen.csv", index=False)


def write_network(folder: Path, shift: int = 1) -> None:
    genes = [f"g{i}" for i in range(30)]
    pd.DataFrame({"source": genes, "target": np.roll(genes, shift)}).to_csv(folder / "network.csv", index=False)


def composed(verb: str, *overrides: str):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(verb, list(overrides))


def config(folder: Path, *overrides: str):
    files = (f"data.record.path={folder}/screen.csv", f"graph.networks.0.path={folder}/network.csv")
    return composed("config", *SMALL, *files, f"paths.runs={folder}/runs", *overrides)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("files") / "here"
    folder.mkdir()
    write_screen(folder)
    write_network(folder)
    made = train(config(folder))
    shutil.copytree(folder, folder.with_name("kept"))
    return made


@pytest.fixture
def run(trained) -> Iterator[Trained]:
    """A finished run; its folder and files are brought back after each test."""
    yield trained
    folder = files_of(trained)
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("kept"), folder)


def files_of(run: Trained) -> Path:
    """Folder of the screen and the network."""
    return run.folder.path.parents[2]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_its_checkpoints_and_its_split_name_the_same_fingerprint(run):
    folder, known = run.folder.path, run.datamodule.spec.data_fingerprint
    assert len(known) == 64
    assert json.loads((folder / "environment.json").read_text())["data_fingerprint"] == known
    assert json.loads((folder / "metrics.json").read_text())["data_fingerprint"] == known
    assert Split.load(folder / "split.parquet").data_fingerprint == known
    for name in ("best", "last"):
        assert checkpoint.load(folder / f"checkpoints/{name}.ckpt").spec.data_fingerprint == known
        content = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
        assert content[checkpoint.KEY]["data_fingerprint"] == known


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: write_screen(folder, shift=1e-6), "samples"),
        (lambda folder: write_network(folder, shift=2), "graph"),
    ],
)
def test_evaluate_refuses_data_that_changed_and_else_writes_elsewhere(run, change, named):
    """One target in the seventh digit, or one edge of the network: the run's record was replaced without a word."""
    before = content(run.folder.path)
    change(files_of(run))
    with pytest.raises(InputError, match=f"was trained on other data: {named} differ.*data_changed=allow"):
        evaluate(composed("evaluate", f"ckpt={run.folder.best}", "n_boot=20"))
    assert content(run.folder.path) == before
    allowed = (f"ckpt={run.folder.best}", "n_boot=20", "data_changed=allow")
    with pytest.raises(InputError, match="holds the run on its own data"):
        evaluate(composed("evaluate", *allowed, f"out={run.folder.path}"))
    scored = evaluate(composed("evaluate", *allowed))
    assert scored.summary["data_changed"] is True
    elsewhere = run.folder.path / "checkpoints" / "best-on-changed-data"
    assert json.loads((elsewhere / "metrics.json").read_text())["data_changed"] is True
    assert {name: text for name, text in content(run.folder.path).items() if name in before} == before
    with pytest.raises(InputError, match="data_changed='yes': must be error or allow"):
        evaluate(composed("evaluate", f"ckpt={run.folder.best}", "data_changed=yes"))


@pytest.mark.parametrize("how", ["last", "auto", "PATH"])
def test_a_run_goes_on_with_the_data_it_began_with(run, how):
    before = content(run.folder.path)
    write_screen(files_of(run), shift=0.5)
    (run.folder.path / "report.html").unlink()  # else auto has nothing to do
    del before["report.html"]
    path = f"ckpt_path={run.folder.last if how == 'PATH' else how}"
    with pytest.raises(InputError, match="was trained on other data: samples differ"):
        train(config(files_of(run), path))
    assert content(run.folder.path) == before, "neither config.yaml nor environment.json was replaced"


def test_where_changed_data_are_allowed_the_run_goes_on_in_a_folder_of_its_own_and_says_so(run):
    before = content(run.folder.path)
    write_screen(files_of(run), shift=0.5)
    more = (f"ckpt_path={run.folder.last}", "trainer.max_epochs=3", "data_changed=allow")
    other = train(config(files_of(run), *more))
    assert other.folder.path != run.folder.path
    assert content(run.folder.path) == before
    assert json.loads((other.folder.path / "metrics.json").read_text())["data_changed"] is True
    again = evaluate(composed("evaluate", f"ckpt={other.folder.best}", "n_boot=20"))
    assert again.summary["data_changed"] is True, "its own data now, yet its first epochs knew others"
    assert config_hash(config(files_of(run))) == config_hash(config(files_of(run), "data_changed=error"))
    assert config_hash(config(files_of(run))) != config_hash(config(files_of(run), "data_changed=allow"))


def test_a_comparator_of_other_values_is_refused_although_its_config_and_split_are_the_same(run):
    write_screen(files_of(run), shift=0.5)
    later = train(config(files_of(run), f"paths.runs={files_of(run)}/later"))
    comparators = f"comparators={run.folder.best}"  # one alone needs no list
    with pytest.raises(InputError, match=f"{run.folder.best} was trained on other data: samples differ"):
        evaluate(composed("evaluate", f"ckpt={later.folder.best}", comparators, "n_boot=20"))
    scored = evaluate(composed("evaluate", f"ckpt={later.folder.best}", comparators, "n_boot=20", "data_changed=allow"))
    assert "data_changed" not in scored.summary, "the model's own data are as they were"
    (facts,) = scored.summary["comparators"].values()
    assert facts["data_changed"] is True


def test_a_checkpoint_whose_fingerprints_were_taken_out_is_of_other_data(run):
    """Files of before had none, and were read with a note; none of this format lacks them."""
    content = torch.load(run.folder.best, weights_only=True)
    del content[checkpoint.KEY]["spec"]["fingerprints"]
    torch.save(content, run.folder.best)
    with pytest.raises(InputError, match="other data: samples, graph differ"):
        evaluate(composed("evaluate", f"ckpt={run.folder.best}", "n_boot=20"))


def test_fine_tuning_may_have_other_values(run):
    write_screen(files_of(run), shift=0.5)
    assert train(config(files_of(run), f"init_from={run.folder.best}")).scored is not None


def test_a_users_gene_features_are_among_the_data_and_computed_ones_are_not(tmp_path):
    """Spectra differ in their last digits between machines; a run could not go on with another number of threads."""
    write_screen(tmp_path)
    write_network(tmp_path)
    genes = [f"g{i}" for i in range(30)]
    graph = CellGraph.from_networks([Network("x", np.array(genes), np.roll(genes, 1), np.ones(30, np.float32), False)])

    def specs(values: list[float], noise: float):
        pd.DataFrame({"gene": genes, "x": values}).to_csv(tmp_path / "features.csv", index=False)
        made = joined_features(
            graph,
            {
                "mine": partial(table_features, path=str(tmp_path / "features.csv")),
                "ours": partial(network_features, spectral=4),
            },
        )
        values = made.values + noise * np.isin(made.columns, list(made.computed))
        record = read_screen(str(tmp_path / "screen.csv"))
        return PerturbationDataModule(record, SPLIT, graph, features=replace(made, values=values)).spec

    known = specs([*range(30)], 0.0)
    assert other_values(known, specs([*range(30)], 1e-6)) == []
    assert other_values(known, specs([*range(29), 7], 0.0)) == ["gene features"]


def test_names_that_a_batch_refers_to_by_number_are_never_exchanged():
    """A model has its own table of molecules and lines: with another one a batch's number would mean another drug."""
    record = simulate_response().response
    vectors = partial(Morgan, bits=32)()
    spec = ResponseDataModule(record, SPLIT, vectors).spec
    drug = np.where(record.drug == record.drug[0], "0 renamed", record.drug)
    other = ResponseDataModule(replace(record, drug=drug), SPLIT, vectors).spec
    assert other_indices(spec, spec) == []
    assert other_indices(spec, other) == ["molecules"]
    saved = checkpoint.Checkpoint(Path("best.ckpt"), spec, OmegaConf.create(), {}, 0)
    with pytest.raises(InputError, match=r"molecules differ; its weights would stand for other names"):
        saved.check_data(other, "allow")
