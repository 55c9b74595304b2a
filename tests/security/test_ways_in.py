"""Files of others run nothing here, and write nowhere: a test for each way in."""

from __future__ import annotations

import ast
import contextlib
import os
import pickle
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hydra.utils import get_object

from torchcell.drug_response import table as response_request
from torchcell.drug_response.molecules import Molecules
from torchcell.io.cache import read_arrays
from torchcell.io.embeddings import read_npz
from torchcell.io.errors import InputError
from torchcell.io.h5ad import read_h5ad
from torchcell.io.sources import registry

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "torchcell").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])
FORBIDDEN = re.compile(
    r"^(eval|exec|compile|__import__|os\.system|os\.popen|.*\.load_from_checkpoint"
    r"|(joblib|dill|cloudpickle|marshal|shelve)\..*|pickle\.(loads?|_?Unpickler)|(pd|pandas)\.read_pickle"
    r"|yaml\.(unsafe_load|full_load)|wandb\.(Api|restore|use_artifact)"
    r"|.*\.(extractall|unpack_archive|use_artifact)|pooch\.(Unzip|Untar))$"
)
"""Calls that run or unpack what a file says. Nothing here unpacks an archive, so none can leave its folder."""


@cache
def tree(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for path in FILES:
        for node in tree(path):
            if isinstance(node, ast.Call):
                yield str(path.relative_to(ROOT)), dotted(node.func), node


def dotted(called: ast.expr) -> str:
    """``a.b.c`` of a call; what stands before the first name is left out."""
    parts = []
    while isinstance(called, ast.Attribute):
        parts.append(called.attr)
        called = called.value
    return ".".join([called.id if isinstance(called, ast.Name) else "", *reversed(parts)])


def keyword(call: ast.Call, name: str) -> str:
    return next((ast.unparse(one.value) for one in call.keywords if one.arg == name), "")


def complaint(where: str, name: str, call: ast.Call) -> str:
    if FORBIDDEN.match(name):
        return f"{where}:{call.lineno} calls {name}"
    if name == "torch.load" and keyword(call, "weights_only") != "True":
        return f"{where}:{call.lineno}: torch.load without weights_only=True"
    if name in ("np.load", "numpy.load") and keyword(call, "allow_pickle") != "False":
        return f"{where}:{call.lineno}: np.load without allow_pickle=False"
    if name == "yaml.load" and "SafeLoader" not in keyword(call, "Loader"):
        return f"{where}:{call.lineno}: yaml.load without a safe loader"
    if keyword(call, "shell") not in ("", "False"):
        return f"{where}:{call.lineno}: a shell"
    return ""


def test_no_call_runs_what_a_file_says():
    found = [said for where, name, call in calls() if (said := complaint(where, name, call))]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "pickle.load(file)",
        "Dango.load_from_checkpoint(path)",
        "subprocess.run(line, shell=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "eval(text)",
    ],
)
def test_the_scan_sees(line):
    call = ast.parse(line).body[0].value  # type: ignore[attr-defined]
    assert complaint("here", dotted(call.func), call)


@pytest.mark.parametrize("target", ["torchcell.io.sources.logging.FileHandler", "torchcell.io.cache.save_record"])
def test_molecule_features_of_a_checkpoint_are_ours(tmp_path, target, monkeypatch):
    features = {"_target_": target, "filename": str(tmp_path / "trace")}
    table = Molecules(np.array(["a"]), np.array(["C"]), np.zeros((1, 2)), np.array([True]), features)
    with pytest.raises(InputError, match="not on the list of what a config"):
        response_request._featurised(None, table)  # type: ignore[arg-type]
    assert not (tmp_path / "trace").exists()
    monkeypatch.setattr(response_request, "check_config", lambda *_: None)
    monkeypatch.setattr(response_request, "FEATURES_FROM", "torchcell.")
    if target.endswith("FileHandler"):
        monkeypatch.setattr(response_request, "get_class", get_object)
        with contextlib.suppress(TypeError):
            response_request._featurised(None, table)  # type: ignore[arg-type]
        assert (tmp_path / "trace").exists(), "the payload is stale"


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("read", [read_arrays, read_npz])
def test_an_npz_with_objects_is_refused(tmp_path, read):
    path = tmp_path / "evil.npz"
    np.savez(path, ids=np.array([Bomb(tmp_path / "trace")], dtype=object), vectors=np.zeros((1, 2)))
    with pytest.raises(InputError, match=r"evil\.npz"):
        read(path)
    assert not (tmp_path / "trace").exists()
    with np.load(path, allow_pickle=True) as archive:
        archive["ids"]
    assert (tmp_path / "trace").exists(), "the payload is stale"


def test_an_h5ad_that_holds_a_pickle_runs_nothing(tmp_path):
    import anndata
    import h5py

    path = tmp_path / "evil.h5ad"
    anndata.AnnData(np.zeros((2, 2), dtype=np.float32)).write_h5ad(path)
    with h5py.File(path, "a") as file:
        file["uns/bomb"] = np.void(pickle.dumps(Bomb(tmp_path / "trace")))
    with contextlib.suppress(InputError):
        read_h5ad(path)
    assert not (tmp_path / "trace").exists()
    with h5py.File(path) as file:
        pickle.loads(file["uns/bomb"][()].tobytes())
    assert (tmp_path / "trace").exists(), "the payload is stale"


def test_sources_come_by_https_with_a_checksum_and_stay_in_their_folder():
    for entry in registry().values():
        for file in entry.files:
            assert not file.url or file.url.startswith("https://"), file.url
            assert re.fullmatch("[0-9a-f]{64}", file.sha256), file.path
            place = PurePosixPath(file.path)
            assert not place.is_absolute(), file.path
            assert ".." not in place.parts, file.path


def test_a_runs_name_cannot_leave_the_folder_of_runs(tmp_path):
    from omegaconf import OmegaConf

    from torchcell.training.run_folder import run_path

    for name in ("../../etc", "/etc/passwd", "a/../../b", "..", "."):
        cfg = OmegaConf.create({"name": name, "seed": 0, "paths": {"runs": str(tmp_path / "runs")}})
        path = run_path(cfg).resolve()
        assert path.parent.parent == tmp_path / "runs", name
        cfg = OmegaConf.create({"name": "a", "seed": name, "paths": {"runs": str(tmp_path / "runs")}})
        assert run_path(cfg).resolve().parent == tmp_path / "runs" / "a", name


def test_the_floors_of_what_reads_files_of_others_have_their_fixes():
    """Lower ones were admitted: torch 2.5 runs code from a file with ``weights_only=True``."""
    import tomllib

    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    floors = {name: tuple(map(int, floor.split("."))) for name, _, floor in (one.partition(">=") for one in named)}
    least = {"torch": (2, 10), "hydra-core": (1, 3, 8), "numcodecs": (0, 16, 6), "filelock": (3, 20, 3)}
    assert {name: floors[name] >= floor for name, floor in least.items()} == dict.fromkeys(least, True)
