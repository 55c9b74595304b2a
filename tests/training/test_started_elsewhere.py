"""A run that was started with relative paths is scored, asked and trained again from any other directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from torchcell.evaluate import evaluate
from torchcell.io.errors import InputError
from torchcell.io.paths import located, looking_in
from torchcell.predict import predict
from torchcell.reproduce import reproduce
from torchcell.train import Trained, train
from torchcell.training.entry import conf_dir
from torchcell.training.run_folder import config_hash


def composed(verb: str, *overrides: str):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(verb, list(overrides))


SMALL = (
    "data=screen", "data.record.path=files/screen.csv", "graph=edge_list", "graph.networks.0.path=files/network.csv",
    "split=gene_disjoint_any", "baselines=none", "logger=csv", "model=dango", "model.encoder.dim=8", "model.readout.heads=1", "trainer.max_epochs=1",
    "evaluation.n_boot=20", "name=mine",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Trained:
    there = tmp_path_factory.mktemp("there")
    (there / "files").mkdir()
    draw = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(30)]
    sets = sorted({"|".join(sorted(draw.choice(genes, 2, replace=False))) for _ in range(200)})
    table = pd.DataFrame({"genes": sets, "fitness": draw.normal(size=len(sets))})
    table.to_csv(there / "files" / "screen.csv", index=False)
    pd.DataFrame({"source": genes, "target": np.roll(genes, 1)}).to_csv(there / "files" / "network.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(there)
        return train(composed("config", *SMALL, f"paths.runs={there}/runs"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def origin(run: Trained) -> Path:
    return run.folder.path.parents[2]


def test_the_config_keeps_what_the_user_wrote_and_where_it_was_written(run):
    config = OmegaConf.load(run.folder.path / "config.yaml")
    assert config.data.record.path == "files/screen.csv"
    assert config.paths.origin == str(origin(run))
    assert config_hash(config) == config_hash(OmegaConf.merge(config, {"paths": {"origin": None}}))


def test_a_run_is_scored_and_asked_from_elsewhere(run, elsewhere):
    """Evaluate said "no such file: files/screen.csv", and not from where."""
    scored = evaluate(composed("evaluate", f"ckpt={run.folder.best}", "n_boot=20", "out=again"))
    assert run.scored is not None
    pd.testing.assert_frame_equal(scored.evaluation.table, run.scored.evaluation.table)
    (elsewhere / "pairs.csv").write_text("genes\ng1|g2\n")
    asked = ("perturbations=pairs.csv", "out=predicted.csv")
    assert len(predict(composed("predict", f"ckpt={run.folder.best}", *asked))) == 1


def test_files_here_come_first_and_are_refused_where_they_are_others(run, elsewhere):
    (elsewhere / "files").mkdir()
    table = pd.read_csv(origin(run) / "files" / "screen.csv")
    table.assign(fitness=table.fitness + 1).to_csv(elsewhere / "files" / "screen.csv", index=False)
    with pytest.raises(InputError, match="was trained on other data: samples differ"):
        evaluate(composed("evaluate", f"ckpt={run.folder.best}", "n_boot=20"))


@pytest.mark.long
def test_a_run_is_reproduced_from_elsewhere(run, elsewhere):
    found = reproduce(run.folder.path, elsewhere / "again", any_code=True)
    then, now = (json.loads((one / "metrics.json").read_text()) for one in (run.folder.path, found.folder))
    assert then["data_fingerprint"] == now["data_fingerprint"]
    assert OmegaConf.load(found.folder / "config.yaml").paths.origin == str(origin(run))


def test_the_error_names_both_places(run, elsewhere):
    moved = origin(run) / "files" / "network.csv"
    moved.rename(moved.with_suffix(".gone"))
    try:
        both = f"files/network.csv; it is relative, and neither in {elsewhere} nor in {origin(run)}"
        with pytest.raises(Exception, match=both):  # hydra wraps it; a verb shows the line alone
            evaluate(composed("evaluate", f"ckpt={run.folder.best}", "n_boot=20"))
    finally:
        moved.with_suffix(".gone").rename(moved)
    with pytest.raises(InputError, match=f"no such file: x.csv; it is relative, and not in {elsewhere}$"):
        located("x.csv")
    with pytest.raises(InputError, match="no such file: /x.csv$"), looking_in("/"):
        located("/x.csv")


def test_what_is_read_later_is_found_although_the_block_is_left(tmp_path, elsewhere):
    """Cells on disk are read batch by batch."""
    from torchcell.cells.backed import BackedMatrix
    from torchcell.cells.simulate import simulate_cells
    from torchcell.cells.table import MatrixOptions, cells_file

    (tmp_path / "there").mkdir()
    simulate_cells().cells.to_anndata().write_h5ad(tmp_path / "there" / "cells.h5ad")
    with looking_in(tmp_path / "there"):
        record = cells_file("cells.h5ad", "counts", covariates=("cell_line",), matrix=MatrixOptions(backed=True))
    assert isinstance(record.cells.X, BackedMatrix)
    assert record.target.shape == (16, 40)
    assert os.path.isabs(record.cells.X.path)
