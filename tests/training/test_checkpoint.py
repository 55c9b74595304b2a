"""A checkpoint is read whole or refused with a reason, and nothing in it is ever run."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.io.gene_features import GeneFeatures
from torchcell.screen.datamodule import PerturbationDataModule
from torchcell.training import checkpoint

CONFIG = {
    "model": {"_target_": "linear_screen.AdditiveScreen"},
    "data": {"_target_": "torchcell.screen.datamodule.PerturbationDataModule"},
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


def test_a_run_in_place_of_its_checkpoint_is_refused_with_what_to_name(saved):
    """Whoever named the run was told that it is truncated."""
    with pytest.raises(InputError, match="is a folder and no checkpoint; a run keeps its best in RUN/checkpoints"):
        checkpoint.load(saved.parent)


def test_a_foreign_file_is_refused(saved):
    torch.save({"weights": torch.zeros(2)}, saved)
    with pytest.raises(InputError, match="no torchcell checkpoint"):
        checkpoint.load(saved)
    saved.write_text("<html>not found</html>")
    with pytest.raises(InputError, match="no torch file"):
        checkpoint.load(saved)


def test_a_checkpoint_of_the_format_before_names_its_version_and_what_to_do(saved):
    """Format 1 had one dictionary of extras for all tasks, and classes at other places."""

    def edit(content):
        about = content[checkpoint.KEY]
        about |= {"format": 2, "version": "0.9"}
        about["spec"] = {"task": "regression", "extras": {"trained_genes": torch.arange(3)}}
        target = {"model": {"_target_": "torchcell.models.dango.Dango"}}
        about["config"] = OmegaConf.to_yaml(OmegaConf.create(CONFIG | target))

    change(saved, edit)
    said = (
        "best.ckpt was written by torchcell 0.9 in format 2, and this version reads format 3 only; install that version"
    )
    with pytest.raises(InputError, match=f"{said}.*or train again with this one: the same experiment and overrides"):
        checkpoint.load(saved)
    change(saved, lambda content: content[checkpoint.KEY].pop("format"))
    with pytest.raises(InputError, match="in format None, and this version reads format 3 only"):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda spec: spec.pop("trained_genes"), "spec is no ScreenSpec: missing 'trained_genes', unknown none"),
        (lambda spec: spec.update(trained_sizes=["2"]), r"spec.trained_sizes\[0\] must be int, not str"),
        (lambda spec: spec.update(center=torch.zeros(3)), r"center \[3\] for 1 outputs"),
        (lambda spec: spec["graph"].pop("csr"), r"spec.graph can't be read \(KeyError: 'csr'\)"),
        (lambda spec: spec["graph"].update(hash="0"), "it was changed"),
        (lambda spec: spec.update({"class": "os.system"}), "not on the list of what a config of others may call"),
        (lambda spec: spec.pop("class"), "the spec names no 'class'"),
    ],
)
def test_a_damaged_or_hostile_spec_is_refused_with_its_path_and_its_field(saved, edit, said):
    change(saved, lambda content: edit(content[checkpoint.KEY]["spec"]))
    with pytest.raises(InputError, match=f"best.ckpt was written by torchcell .*, and can't be read: .*{said}"):
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
    with pytest.raises(InputError, match="is never loaded|no torch file"):
        checkpoint.load(saved)
    assert not trace.exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.run",
        "torchcell.training.run_folder.shutil.rmtree",  # through what a trusted module imports
        "torchcell.io.cache.os.remove",
        "torchcell_evil.Model",
    ],
)
def test_a_config_that_names_a_foreign_target_is_refused(saved, target):
    def edit(content):
        content[checkpoint.KEY]["config"] = OmegaConf.to_yaml(
            OmegaConf.create(CONFIG | {"model": {"_target_": target}})
        )

    change(saved, edit)
    with pytest.raises(InputError, match="not on the list of what a config of others may call"):
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
    with pytest.raises(
        InputError,
        match="best.ckpt could not be written .*No space left.* MB are free .*is whole. Make room.*ckpt_path=auto",
    ):
        checkpoint.AtomicCheckpointIO().save_checkpoint({"a": 1}, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def with_features(pairs, prefix: str = "", columns: tuple[str, ...] = ("x", "y")):
    """A spec of ``pairs``, its genes renamed, with features."""
    screen = replace(pairs, genes=np.char.add(prefix, pairs.genes))
    table = np.random.default_rng(0).normal(size=(len(screen.genes), len(columns))).astype(np.float32)
    split = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}
    return PerturbationDataModule(screen, split, features=GeneFeatures(screen.genes, columns, table)).spec


@pytest.fixture
def fed(pairs, tmp_path):
    """A checkpoint of a model that knows genes by their features."""
    from feature_screen import FeatureScreen

    spec = with_features(pairs)
    config = CONFIG | {"model": {"_target_": "feature_screen.FeatureScreen"}}
    about = {checkpoint.KEY: checkpoint.describe(spec, OmegaConf.create(config))}
    torch.save({"state_dict": FeatureScreen(spec).state_dict(), "epoch": 3, **about}, tmp_path / "fed.ckpt")
    return checkpoint.load(tmp_path / "fed.ckpt")


def test_a_model_is_built_for_added_genes_with_the_weights_it_has(fed, tmp_path):
    (tmp_path / "new.csv").write_text("y,gene,x\n1,N1,2\n3,N2,4\n")
    spec = fed.spec_with(tmp_path / "new.csv", ["feature_screen"])
    assert spec.genes == (*fed.spec.genes, "N1", "N2")
    before, after = fed.model(["feature_screen"]), fed.model(["feature_screen"], spec)
    assert len(after.values) == len(before.values) + 2
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


def test_genes_are_added_only_to_models_that_can_take_them(saved, fed, tmp_path):
    (tmp_path / "new.csv").write_text("gene,x\nN1,2\n")
    with pytest.raises(InputError, match="new.csv: AdditiveScreen knows genes by name only"):
        checkpoint.load(saved).spec_with(tmp_path / "new.csv", TRUST)
    with pytest.raises(InputError, match="new.csv: .*wrong width: 1 columns where 2.*missing 'y'"):
        fed.spec_with(tmp_path / "new.csv", ["feature_screen"])
    with pytest.raises(InputError, match="not on the list of what a config of others may call"):
        fed.spec_with(tmp_path / "new.csv")


def test_other_genes_are_taken_where_features_alone_say_what_a_gene_is(fed, saved, pairs):
    organism = with_features(pairs, prefix="Y")
    with pytest.raises(InputError, match="other data: genes differ"):
        fed.check_names(organism)
    fed.check_names(organism, genes=False)
    for columns in (("x", "z"), ("y", "x"), ("x",)):
        with pytest.raises(InputError, match="other data: gene features differ"):
            fed.check_names(with_features(pairs, "Y", columns), genes=False)
    bare = checkpoint.load(saved)
    with pytest.raises(InputError, match="gene features differ"):
        fed.check_names(bare.spec, genes=False)
    with pytest.raises(InputError, match="gene features differ"):
        bare.check_names(bare.spec, genes=False)
