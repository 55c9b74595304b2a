"""A checkpoint is read whole or refused with a reason, and nothing in it is ever run."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from omegaconf import OmegaConf

from torchcell.data.errors import InputError
from torchcell.datamodules.perturbation import PerturbationDataModule
from torchcell.graph.cell_graph import CellGraph
from torchcell.run import checkpoint

CONFIG = {
    "model": {"_target_": "linear_screen.AdditiveScreen"},
    "data": {"_target_": "torchcell.datamodules.perturbation.PerturbationDataModule"},
}
TRUST = ["linear_screen"]


@pytest.fixture
def saved(pairs, ring, tmp_path):
    from linear_screen import AdditiveScreen

    split = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}
    spec = PerturbationDataModule(pairs, split, CellGraph.from_networks(ring)).spec
    model = AdditiveScreen(spec)
    about = {checkpoint.KEY: checkpoint.describe(spec, OmegaConf.create(CONFIG))}
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": model.state_dict(), "epoch": 3, **about}, path)
    return path


def change(path, edit) -> None:
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)


def test_a_checkpoint_alone_rebuilds_the_model(saved):
    loaded = checkpoint.load(saved)
    model = loaded.model(TRUST)
    assert not model.training
    assert loaded.spec.graph is not None
    assert loaded.spec.outputs == ("y",)


def test_a_truncated_file_is_refused(saved):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated or no torch file"):
        checkpoint.load(saved)


def test_a_foreign_file_is_refused(saved):
    torch.save({"weights": torch.zeros(2)}, saved)
    with pytest.raises(InputError, match="no torchcell checkpoint"):
        checkpoint.load(saved)
    saved.write_text("<html>not found</html>")
    with pytest.raises(InputError, match="no torch file"):
        checkpoint.load(saved)


class Bomb:
    def __init__(self, trace) -> None:
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_file_that_tries_to_run_code_is_refused_and_runs_nothing(saved, tmp_path, writer):
    trace = tmp_path / "exploded"
    if writer == "torch":
        torch.save({"state_dict": Bomb(trace)}, saved)
    else:
        saved.write_bytes(pickle.dumps({"state_dict": Bomb(trace)}))
    with pytest.raises(InputError, match="was not loaded|no torch file"):
        checkpoint.load(saved)
    assert not trace.exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.run",
        "torchcell.run.folder.shutil.rmtree",  # through what a trusted module imports
        "torchcell.data.cache.os.remove",
        "torchcell_evil.Model",
    ],
)
def test_a_config_that_names_a_foreign_target_is_refused(saved, target):
    def edit(content):
        content[checkpoint.KEY]["config"] = OmegaConf.to_yaml(
            OmegaConf.create(CONFIG | {"model": {"_target_": target}})
        )

    change(saved, edit)
    with pytest.raises(InputError, match="outside the trusted packages"):
        checkpoint.load(saved).model(TRUST)


def test_weights_that_do_not_fit_are_named(saved):
    def edit(content):
        content["state_dict"]["effect.wieght"] = content["state_dict"].pop("effect.weight")

    change(saved, edit)
    with pytest.raises(InputError, match=r"missing 'effect.weight', unknown 'effect.wieght'"):
        checkpoint.load(saved).model(TRUST)


def test_a_full_disk_leaves_the_old_checkpoint_whole(saved, monkeypatch):
    before = saved.read_bytes()

    def full(content, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.AtomicCheckpointIO().save_checkpoint({"a": 1}, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
