"""Runs and checkpoints as a stranger would send them: each payload leaves a marker where it is run."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

KEY = "torchcell"

Config = dict[str, Any]
Edit = Callable[[Config, Path], None]
"""Changes a config in place, so that a marker is written when it is run."""


class Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return subprocess.call, (["touch", self.marker],)


def pickled(marker: Path) -> str:
    """A pickle beside the marker that writes it."""
    path = marker.with_name("evil.pkl")
    path.write_bytes(pickle.dumps(Touch(marker)))
    return str(path)


def edited_checkpoint(run: Path, folder: Path, edit: Edit, marker: Path) -> Path:
    """The best checkpoint of a copy of ``run`` in ``folder`` whose config was edited."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("wandb", ".lock"))
    path = folder / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    config = OmegaConf.to_container(OmegaConf.create(content[KEY]["config"]))
    edit(config, marker)
    content[KEY]["config"] = OmegaConf.to_yaml(OmegaConf.create(config))
    torch.save(content, path)
    return path


def edited_run(run: Path, folder: Path, edit: Edit, marker: Path) -> Path:
    """A copy of ``run`` in ``folder`` whose config.yaml was edited."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("wandb", ".lock", "checkpoints"))
    path = folder / "config.yaml"
    config = OmegaConf.to_container(OmegaConf.load(path))
    edit(config, marker)
    path.write_text(json.dumps(config))  # which is YAML
    return folder


# In a checkpoint -------------------------------------------------------------------------------------


def downloads(url: str) -> Edit:
    """Bytes of an address to any path, while the model is built."""

    def edit(config: Config, marker: Path) -> None:
        file = {"_target_": "torchcell.io.sources.SourceFile", "path": str(marker), "bytes": 1, "url": url}
        file["sha256"] = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # of what it sends: foo
        config["model"]["optimizer"] = {
            "_target_": "torchcell.io.sources._download", "file": file, "folder": None,
            "target": {"_target_": "torchcell.io.sources._cached_path", "file": dict(file)},
        }  # fmt: skip

    return edit


def graph_writes_a_screen(config: Config, marker: Path) -> None:
    """A function of a trusted package that writes where it is told to."""
    screen = {"_target_": "torchcell.screen.simulate.simulated_screen", "n_genes": 120, "n_sets": 50, "n_queries": 8}
    screen |= {"n_arrays": 30}
    config["graph"] = {"_target_": "torchcell.screen.table.write_screen", "screen": screen, "path": f"{marker}.csv"}


def model_writes_a_screen(config: Config, marker: Path) -> None:
    graph_writes_a_screen(config, marker)
    config["model"]["scheduler"] = config.pop("graph")
    config["graph"] = None


def baseline_writes_a_screen(config: Config, marker: Path) -> None:
    graph_writes_a_screen(config, marker)
    config["baselines"] = {"mean": config["graph"]}


def baseline_leaves_the_cache(config: Config, marker: Path) -> None:
    """The name of a baseline is that of a file."""
    config["baselines"] = {f"../../../../../../../..{marker}/x": {"_target_": "torchcell.screen.baselines.Mean"}}


# In a run's folder -----------------------------------------------------------------------------------


def copying(marker: Path) -> Config:
    """A call of what a module of ours imports."""
    (marker.parent / "payload").write_text("x")
    path = "torchcell.training.run_folder.shutil.copyfile"
    return {"_target_": path, "src": str(marker.parent / "payload"), "dst": str(marker)}


def hydra_callbacks(config: Config, marker: Path) -> None:
    config["hydra"] = {"callbacks": {"evil": copying(marker)}}


def defaults_beside(config: Config, marker: Path) -> None:
    """Hydra composes the file beside config.yaml too, which nobody checked."""
    (marker.parent / "run" / "evil.yaml").write_text("# @package callbacks.evil\n" + json.dumps(copying(marker)))
    config["defaults"] = ["_self_", "evil"]


def searchpath(config: Config, marker: Path) -> None:
    """As before, from a folder anywhere."""
    folder = marker.parent / "elsewhere"
    folder.mkdir(exist_ok=True)
    (folder / "evil2.yaml").write_text("# @package callbacks.evil\n" + json.dumps(copying(marker)))
    config["hydra"] = {"searchpath": [f"file://{folder}"]}
    config["defaults"] = ["_self_", "evil2"]


def loads_by_torch(config: Config, marker: Path) -> None:
    """What a module of ours imports is no object of ours."""
    config["graph"] = {
        "_target_": "torchcell.training.checkpoint.torch.load", "f": pickled(marker), "weights_only": False
    }  # fmt: skip


def loads_by_pandas(config: Config, marker: Path) -> None:
    config["graph"] = {"_target_": "torchcell.training.loggers.pd.read_pickle", "filepath_or_buffer": pickled(marker)}


def copies_a_file(config: Config, marker: Path) -> None:
    config["graph"] = copying(marker)


def loads_a_checkpoint(config: Config, marker: Path) -> None:
    """Lightning's own, which reads pickles."""
    path = marker.with_name("evil.ckpt")
    torch.save(Touch(marker), path)
    config["graph"] = {
        "_target_": "torchcell.screen.models.dango.Dango.load_from_checkpoint",
        "checkpoint_path": str(path),
        "weights_only": False,
    }


def writes_json(config: Config, marker: Path) -> None:
    """A function of ours that writes where it is told to."""
    file = {"_target_": "torchcell.io.sources.SourceFile", "path": str(marker), "bytes": 1, "sha256": ""}
    path = {"_target_": "torchcell.io.sources._cached_path", "file": file}
    config["graph"] = {"_target_": "torchcell.io.cache.write_json", "path": path, "content": "hostile"}


def target_in_halves(config: Config, marker: Path) -> None:
    """An interpolation makes the node whose text was never looked at."""
    node = copying(marker)
    config["half"] = "_tar"
    text = "{${half}get_: %s, src: %s, dst: %s}" % tuple(node.values())  # noqa: UP031
    config["graph"] = "${oc.create:'" + text + "'}"


def target_of_two_keys(config: Config, marker: Path) -> None:
    config["first"], config["second"] = "torchcell.training.run_folder", "shutil.copyfile"
    config["graph"] = {**copying(marker), "_target_": "${first}.${second}"}


def target_of_the_environment(config: Config, marker: Path) -> None:
    node = copying(marker)
    config["graph"] = {**node, "_target_": "${oc.env:NOT_SET_EVER,%s}" % node["_target_"]}  # noqa: UP031


OF_RUNS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        hydra_callbacks, defaults_beside, searchpath, loads_by_torch, loads_by_pandas, copies_a_file,
        loads_a_checkpoint, writes_json, target_in_halves, target_of_two_keys, target_of_the_environment,
    )
}  # fmt: skip
