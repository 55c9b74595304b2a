"""A checkpoint or a run that somebody sent runs nothing but models and data of ours: a test for each way in.

Each attack goes through the verb that a user would call. Its twin shows that the payload is live: with the check
patched off the marker is there.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import pkgutil
import re
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import attacks
import hydra
import pytest
import yaml
from attacks import OF_RUNS, Config, edited_checkpoint, edited_run
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

import torchcell
from torchcell import reproduce
from torchcell.io import configurable, plain_config
from torchcell.io.configurable import CALLBACKS, TRAINER, check_config
from torchcell.io.errors import InputError
from torchcell.io.paths import own_home
from torchcell.io.plain_config import parse_plain, resolved
from torchcell.training import baselines, checkpoint, entry

ROOT = Path(__file__).resolve().parents[2]
REFUSED = "not on the list of what a config of others may call"
OF_CHECKPOINTS = {
    "predict": attacks.model_writes_a_screen,
    "predict system": attacks.baseline_writes_a_screen,
    "embed": attacks.graph_writes_a_screen,
    "evaluate": attacks.graph_writes_a_screen,
    "comparators": attacks.graph_writes_a_screen,
}


def markers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("marker*"))


def nothing(config: Config, marker: Path) -> None: ...


@pytest.mark.parametrize("verb", OF_CHECKPOINTS)
def test_a_checkpoint_of_others_writes_nothing(verb, verbs, finished, tmp_path, monkeypatch):
    evil = edited_checkpoint(finished, tmp_path / "evil", OF_CHECKPOINTS[verb], tmp_path / "marker")
    with pytest.raises(InputError, match=f"write_screen.*{REFUSED}"):
        verbs[verb](evil)
    assert markers(tmp_path) == []
    verbs[verb](edited_checkpoint(finished, tmp_path / "clean", nothing, tmp_path / "marker"))
    monkeypatch.setattr(checkpoint, "check_config", lambda *_: None)
    with contextlib.suppress(InputError):
        verbs[verb](evil)
    assert markers(tmp_path) == ["marker.csv"], "the payload is stale"


def test_a_checkpoint_of_others_fetches_nothing(verbs, finished, tmp_path, address, monkeypatch):
    evil = edited_checkpoint(finished, tmp_path / "run", attacks.downloads(address), tmp_path / "marker.pth")
    with pytest.raises(InputError, match=REFUSED):
        verbs["predict"](evil)
    assert markers(tmp_path) == []
    monkeypatch.setattr(checkpoint, "check_config", lambda *_: None)
    verbs["predict"](evil)
    assert (tmp_path / "marker.pth").read_text() == "foo", "the payload is stale"


def test_a_baseline_of_others_is_no_path(verbs, finished, tmp_path, monkeypatch):
    evil = edited_checkpoint(finished, tmp_path / "run", attacks.baseline_leaves_the_cache, tmp_path / "marker")
    with pytest.raises(InputError, match="names files: use letters"):
        verbs["evaluate"](evil)
    assert markers(tmp_path) == []
    for folder in ("fitted", "baselines"):
        (own_home() / folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(baselines, "cache_file", lambda folder, name, *_: own_home() / folder / f"{name}-{folder}.npz")
    with contextlib.suppress(InputError, OSError):
        verbs["evaluate"](evil)
    assert markers(tmp_path) == ["marker"], "the payload is stale"


def as_hydra_would(folder: Path, build: bool = True) -> None:
    """Compose a folder by Hydra, and call what its config names, as training does."""

    def task(cfg: Any) -> None:
        for room in (cfg.graph, *cfg.callbacks.values(), cfg.trainer) if build else ():
            with contextlib.suppress(Exception):
                instantiate(room)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit, Exception):
        patch.setattr(sys, "argv", ["x", "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"])
        GlobalHydra.instance().clear()
        hydra.main(version_base="1.3", config_path=str(folder), config_name="config")(task)()
    GlobalHydra.instance().clear()


@pytest.mark.parametrize("attack", OF_RUNS)
def test_a_run_of_others_runs_nothing(attack, finished, tmp_path, monkeypatch, capsys):
    evil = edited_run(finished, tmp_path / "run", OF_RUNS[attack], tmp_path / "marker")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("training was started"))
    monkeypatch.setattr(reproduce, "code_change", lambda _: "")
    assert reproduce.main([str(evil), "-o", str(tmp_path / "again")]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(
        f"{REFUSED}|by which Hydra would run|are for you to give|is not followed in a run that may be a stranger's",
        said,
    )
    assert markers(tmp_path) == []
    monkeypatch.setattr(reproduce, "checked_config", lambda *_: {})
    monkeypatch.setattr(reproduce, "_train", lambda *_: as_hydra_would(evil))
    with contextlib.suppress(IndexError):
        reproduce.main([str(evil), "-o", str(tmp_path / "again")])
    assert markers(tmp_path) == ["marker"], "the payload is stale"


class Started(Exception):
    """In place of training."""


def started(monkeypatch, run: Path, *arguments: str) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """The config that training would have got, its environment and its command."""
    seen: list[Any] = []

    def start(command: list[str], env: dict[str, str], check: bool) -> None:
        folder = Path(command[command.index("--config-path") + 1])
        assert [path.name for path in folder.iterdir()] == ["config.yaml"]
        seen.extend([OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")), env, command])
        raise Started

    with monkeypatch.context() as patch:
        patch.setattr(reproduce.subprocess, "run", start)
        patch.setattr(reproduce, "code_change", lambda _: "")
        with pytest.raises(Started):
            reproduce.main([str(run), *arguments])
    return tuple(seen)


def test_what_was_checked_is_what_is_run(finished, tmp_path, monkeypatch):
    config, _, command = started(monkeypatch, finished, "-o", str(tmp_path / "again"))
    was = OmegaConf.load(finished / "config.yaml")
    was.callbacks.early_stopping  # noqa: B018
    expected = OmegaConf.to_container(was, resolve=True)
    for key in ("logger", "overwrite", "ckpt_path"):
        del expected[key], config[key]
    runs = config["paths"].pop("runs")
    expected["paths"].pop("runs")
    assert config == expected
    assert Path(runs).is_relative_to(tmp_path / "again")
    assert str(finished) not in command


def test_a_conf_folder_where_one_stands_is_not_composed(finished, tmp_path, monkeypatch):
    (tmp_path / "conf" / "hydra" / "job_logging").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    _, _, command = started(monkeypatch, finished, "-o", str(tmp_path / "again"))
    assert command.count("--config-dir") == 1
    assert command[command.index("--config-dir") + 1] == command[command.index("--config-path") + 1]
    seen: list[list[str]] = []
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(hydra, "main", lambda **_: lambda _: lambda: seen.append(list(sys.argv)))
    for more in ([], ["--config-dir", "elsewhere"]):
        monkeypatch.setattr(sys, "argv", ["train", *more])
        entry.run_entry(lambda cfg: cfg, "config")
    assert seen[0][1:] == ["--config-dir", str(tmp_path / "conf")], "the payload is stale"
    assert seen[1][1:] == ["--config-dir", "elsewhere"]


def test_no_variable_of_others_is_set(finished, tmp_path, monkeypatch):
    run = edited_run(finished, tmp_path / "run", nothing, tmp_path / "marker")
    about = json.loads((run / "environment.json").read_text())
    about["threads"]["variables"] = {"LD_PRELOAD": "/evil.so", "OMP_NUM_THREADS": "1; touch x", "MKL_NUM_THREADS": "2"}
    (run / "environment.json").write_text(json.dumps(about))
    _, variables, _ = started(monkeypatch, run, "-o", str(tmp_path / "again"))
    assert variables.get("LD_PRELOAD") != "/evil.so"
    assert variables["OMP_NUM_THREADS"].isdigit()
    assert variables["MKL_NUM_THREADS"] == "2"
    monkeypatch.setattr(reproduce.environment, "variables_of", lambda then: then["threads"]["variables"])
    _, variables, _ = started(monkeypatch, run, "-o", str(tmp_path / "again"))
    assert variables["LD_PRELOAD"] == "/evil.so", "the payload is stale"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [1]\nb: [*x, *x]\n", "alias"),
        ("a: " + "[" * 200 + "]" * 200, "deeper than 40 levels"),
        ("a: !!python/object/apply:os.system [true]", "can't be read"),
        ("a: '" + "x" * 2**21 + "'", "torchcell writes less"),
        ("a: [" + "1," * 100_001 + "]", "more than 40,000 values"),
        ("- 1", "not a mapping"),
        ("a: [", "can't be read"),
    ],
)
def test_yaml_of_others_is_plain_and_small(text, said, monkeypatch):
    with pytest.raises(InputError, match=said):
        parse_plain(text, "config.yaml")
    if said in ("alias", "torchcell writes less", "more than 40,000 values"):
        monkeypatch.setattr(plain_config, "LARGEST", 2**30)
        monkeypatch.setattr(plain_config, "_refuse_bombs", lambda *_: None)
        assert set(parse_plain(text, "config.yaml")) <= {"a", "b"}, "the payload is stale"


def test_yaml_of_others_makes_no_object(tmp_path):
    text = f"a: !!python/object/apply:os.mkdir ['{tmp_path}/marker']"
    with pytest.raises(InputError, match="can't be read"):
        parse_plain(text, "config.yaml")
    assert markers(tmp_path) == []
    yaml.unsafe_load(text)
    assert markers(tmp_path) == ["marker"], "the payload is stale"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"a": "${b}", "b": "${a}"}, "lead to themselves"),
        ({f"k{i}": [f"${{k{i + 1}}}"] * 9 for i in range(30)} | {"k30": 1}, "lead to themselves, or to more than"),
        ({"a": "${oc.env:HOME}"}, "not followed"),
        ({"a": "${hydra:runtime.cwd}"}, "not followed"),
        ({"a": "${${b}:x}", "b": "oc.create"}, "not followed"),
        ({"a": "${nowhere}"}, "leads nowhere"),
        ({"hydra": {}}, "'hydra'"),
        ({"defaults": []}, "'defaults'"),
    ],
)
def test_interpolations_of_others_lead_to_their_own_keys(config, said):
    with pytest.raises(InputError, match=said):
        resolved(config, "config.yaml")


def test_plain_interpolations_are_filled_in(monkeypatch):
    monkeypatch.setenv("SLURM_NNODES", "3")
    given = {"a": {"b": 2}, "c": "${a.b}", "d": "x${a.b}", "e": ["${a}"], "f": "${oc.select:a.z,null}"}
    given["g"] = "${oc.decode:${oc.env:SLURM_NNODES,1}}"
    found = resolved(given, "config.yaml")
    assert found == {"a": {"b": 2}, "c": 2, "d": "x2", "e": [{"b": 2}], "f": None, "g": 3}


def test_a_variable_of_the_environment_is_no_part_of_a_config(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    with pytest.raises(InputError, match="not followed"):
        resolved({"a": "${oc.env:SECRET}"}, "config.yaml")
    found = OmegaConf.to_container(OmegaConf.create({"a": "${oc.env:SECRET}"}), resolve=True)
    assert found == {"a": "hunter2"}, "the payload is stale"


NOT_LISTED = pytest.mark.parametrize(
    ("config", "place", "said"),
    [
        ({"_target_": "os.system", "command": "true"}, "", REFUSED),
        ({"a": [{"b": {"_target_": "builtins.eval"}}]}, "", REFUSED),
        ({"_target_": "antigravity.fly"}, "", REFUSED),
        ({"_target_": "torchcell.screen.models.dango.Dango", "optimizer": "${evil}"}, "", "interpolation"),
        ({"_target_": "torchcell.screen.models.dango.Dango", "${evil}": 1}, "", "interpolation"),
        ({"_target_": "torchcell.io.cache.save_record"}, "", REFUSED),
        ({"_target_": "torchcell.io.tables.write_table"}, "", REFUSED),
        ({"_target_": "torchcell.screen.models.dango.Dango.load_from_checkpoint"}, "", REFUSED),
        ({"_target_": "torchcell.screen.models.dango.Dango.__subclasses__"}, "", REFUSED),
        ({"_target_": "torchcell.screen.models.dango._Private"}, "", REFUSED),
        ({"_target_": "torchcell.io.sources.logging.FileHandler"}, "", REFUSED),
        ({"_target_": "torchcell.graph.cell_graph.CellGraph"}, "", REFUSED),
        ({"_target_": "torchcell.training.run_folder.RunFolder"}, "", REFUSED),
        ({"_target_": "torchcell.training.loggers.CheckpointAfterHistory", "dirpath": "x"}, CALLBACKS, REFUSED),
        ({"_target_": "torchcell.training.distributed.slurm.Requeue"}, CALLBACKS, REFUSED),
        ({"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "x"}, CALLBACKS, REFUSED),
        ({"_target_": "lightning.Trainer"}, "model", REFUSED),
        ({"_target_": "lightning.Trainer", "default_root_dir": "x"}, TRAINER, "default_root_dir"),
        ({"_target_": "lightning.Trainer", "model_registry": "x"}, TRAINER, "model_registry"),
        (
            {"_target_": "lightning.Trainer", "x": {"_target_": "lightning.pytorch.profilers.SimpleProfiler"}},
            TRAINER,
            REFUSED,
        ),
        ({"_target_": "torch.optim.lr_scheduler.warnings.warn"}, "", REFUSED),
        ({"_target_": "torch.optim.swa_utils.update_bn"}, "", REFUSED),
        ({"_target_": "torch.load"}, "", REFUSED),
        ({"_target_": "torchcell.screenx.Evil"}, "", "does not have"),
        ({"_target_": ["os.system"]}, "", REFUSED),
        ({"_target_": "torchcell.screen.table.read_screen", "path": "https://evil.org/x.csv"}, "", "an address"),
        ({"_target_": "torchcell.screen.table.read_screen", "path": "simplecache::s3://evil/x.csv"}, "", "an address"),
    ],
)


@NOT_LISTED
def test_what_is_not_on_the_list_would_be_found_without_it(config, place, said):
    """But for what is made up: a name that went with a move would be refused by any list."""
    named = re.findall(r"'_target_': '([\w.]+)'", str(config))
    for target in named:
        if said != "does not have" and not target.startswith(("antigravity", "torchcell.screen.models.dango._Private")):
            assert get_object(target) is not None, "the payload is stale"


@NOT_LISTED
def test_what_is_not_on_the_list_is_refused(config, place, said):
    with pytest.raises(InputError, match=said):
        check_config(config, (), place)


def test_a_package_of_ones_own_is_trusted_by_name_and_nothing_that_it_imports():
    check_config({"_target_": "linear_screen.AdditiveScreen", "link": "https://mine.org"}, ["linear_screen"])
    with pytest.raises(InputError, match=REFUSED):
        check_config({"_target_": "linear_screen.AdditiveScreen"})
    with pytest.raises(InputError, match=REFUSED):
        check_config({"_target_": "linear_screen.nn.Linear"}, ["linear_screen"])
    gone = {"_target_": "torchcell.models.dango.Dango"}
    with pytest.raises(InputError, match="does not have"):
        check_config(gone, ["torchcell"])
    check_config(gone, ["torchcell"], elsewhere=True)


def test_a_new_model_and_its_options_need_no_entry(monkeypatch):
    """A file below a task's models is enough."""
    from dataclasses import dataclass

    from torch import nn

    from torchcell.screen.models import dango

    @dataclass(frozen=True)
    class Options:
        width: int = 2

    @dataclass
    class Mutable:
        width: int = 2

    made = {"Mine": type("Mine", (dango.Dango,), {}), "Options": Options, "Mutable": Mutable}
    made |= {"Layer": type("Layer", (nn.Module,), {}), "helper": lambda path: path}
    for name, one in made.items():
        one.__module__ = dango.__name__
        monkeypatch.setattr(dango, name, one, raising=False)
    node = {name: {"_target_": f"{dango.__name__}.{name}"} for name in made}
    check_config([node["Mine"], node["Options"], node["Layer"]])
    for name in ("Mutable", "helper"):
        with pytest.raises(InputError, match=REFUSED):
            check_config(node[name])


def test_all_that_a_config_of_ours_calls_is_on_the_list():
    """But for what Hydra itself calls, and loggers, which a run of others brings none of."""
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        room = path.relative_to(ROOT / "conf").parts[0]
        if room in ("hydra", "logger"):
            continue
        for target in re.findall(r"^[^#\n]*_target_: *([\w.]+)", path.read_text(), re.MULTILINE):
            if target != "null":
                check_config({"_target_": target}, (), room if room in (TRAINER, CALLBACKS) else "model")


@cache
def listed() -> dict[str, Any]:
    """Every object of the package that is on a list, by name."""
    found = {}
    for module in pkgutil.walk_packages(torchcell.__path__, "torchcell."):
        for name, one in vars(importlib.import_module(module.name)).items():
            if getattr(one, "__module__", None) != module.name or name.startswith("_"):
                continue
            inner = [(f"{name}.{key}", getattr(one, key)) for key in vars(one)] if isinstance(one, type) else []
            for full, each in [(name, one), *inner]:
                for place in ("", TRAINER, CALLBACKS):
                    with contextlib.suppress(InputError):
                        configurable.find(f"{module.name}.{full}", (), place)
                        found[f"{module.name}.{full}"] = each
    return found


WRITES = re.compile(
    r"(^|_)(out|output|folder|dir|dirpath|save|log|to|url|uri|cache|filename)$|^(save|out|write)_(?!features)"
)
"""Names of arguments that say where something goes, or whence it comes."""


def test_nothing_on_the_list_takes_a_path_to_write_or_an_address():
    assert len(listed()) > 80
    odd = {
        f"{name}({argument})"
        for name, one in listed().items()
        for argument in inspect.signature(one).parameters
        if WRITES.search(argument)
    }
    assert odd == set()


def test_nothing_on_the_list_is_a_way_to_more():
    """No function takes the name of another, or a class to make."""
    odd = {
        name
        for name, one in listed().items()
        if {"target", "_target_", "config", "cls"} & {*inspect.signature(one).parameters}
    }
    assert odd == set()
