"""Going on with other epochs: the config is another run's then, and each refusal says what there is and what to do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from torchcell.io.errors import InputError
from torchcell.train import Trained, train
from torchcell.training.entry import conf_dir

SMALL = (
    "data.record.n_genes=120",
    "data.record.n_sets=200",
    "data.record.n_queries=8",
    "data.record.n_arrays=30",
    "model.encoder.dim=8",
    "model.readout.heads=1",
    "baselines=none",
    "evaluation.n_boot=20",
    "trainer.early_stopping.patience=1",
    "trainer.early_stopping.min_delta=10",  # it stops after two epochs
)


def config(folder: Path, *overrides: str):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", [*SMALL, f"paths.runs={folder}", *overrides])


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Trained:
    return train(config(tmp_path_factory.mktemp("runs"), "trainer.max_epochs=7"))


def runs(first: Trained) -> Path:
    return first.folder.path.parents[1]


@pytest.mark.parametrize(("epochs", "why"), [(1, "is fewer"), (2, "leaves none to do")])
def test_fewer_epochs_than_were_done_are_refused_before_anything_is_made(first, epochs, why):
    """It said "no checkpoint .../best.ckpt", of a folder that had just been made."""
    before = sorted(first.folder.path.parent.iterdir())
    with pytest.raises(InputError, match=f"checkpoint has done 2 epochs, trainer.max_epochs={epochs} {why}.*evaluate"):
        train(config(runs(first), f"trainer.max_epochs={epochs}", f"ckpt_path={first.folder.last}"))
    assert sorted(first.folder.path.parent.iterdir()) == before


def test_more_epochs_are_another_run_and_the_refusal_names_the_checkpoint_to_go_on_from(first):
    with pytest.raises(InputError) as said:
        train(config(runs(first), "trainer.max_epochs=9", "ckpt_path=last"))
    assert f"nearest one there is, {first.folder.path}, differs in 'trainer.max_epochs (there 7, here 9)'" in str(
        said.value
    )
    assert f"ckpt_path={first.folder.last}" in str(said.value)
    with pytest.raises(InputError, match="there is no .*last.ckpt; run without it to start"):
        train(config(runs(first), "name=other", "ckpt_path=last"))
    with pytest.raises(InputError, match="there is no .*last.ckpt; run without it to start"):
        train(config(runs(first), "seed=3", "ckpt_path=last"))


def test_a_run_that_was_stopped_early_goes_on_with_more_patience_and_else_says_why_not(first):
    path = (f"ckpt_path={first.folder.last}", "trainer.max_epochs=5")
    before = sorted(first.folder.path.parent.iterdir())
    with pytest.raises(InputError, match="saved when early stopping had ended its run.*patience.*init_from="):
        train(config(runs(first), *path))
    assert sorted(first.folder.path.parent.iterdir()) == before, "and leaves no folder"
    more = train(config(runs(first), *path, "trainer.early_stopping.patience=3"))
    assert pd.read_csv(more.folder.path / "history.csv")["epoch"].tolist() == [2, 3]
