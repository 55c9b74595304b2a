"""The commands of every study are ones that the config tree can read, though a study takes hours."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from torchcell.training.entry import conf_dir

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted(path for path in (ROOT / "experiments").glob("*/run.sh") if "study.sh" in path.read_text())
GROUPS = ("+experiment=", "model=", "split=", "data=", "graph=", "baselines=", "callbacks=", "trainer=")


def told(study: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the study would start, said and not done."""
    environment = {**os.environ, "PYTHON": "echo", "SEEDS": "0", "JOBS": "1", "RUNS": "RUNS", "OUT": "OUT"}
    return subprocess.run(
        ["bash", str(study), *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def commands(study: Path) -> list[tuple[str, list[str]]]:
    """Verbs and overrides; of commands that differ in plain values alone, one."""
    answer = told(study)
    assert answer.returncode == 0, answer.stderr
    found = {}
    for line in answer.stdout.splitlines():
        _, _, command = line.partition("-m torchcell.")
        verb, *overrides = shlex.split(command) or [""]
        if verb in ("train", "profile", "embed"):
            kind = tuple(each if each.startswith(GROUPS) else each.split("=")[0] for each in overrides)
            found[verb, kind] = (verb, overrides)
    return list(found.values())


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.parent.name)
def test_every_command_of_a_study_composes(study):
    every = commands(study)
    assert every
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for verb, overrides in every:
            cfg = compose("config" if verb == "train" else verb, overrides)
            written = {"train": "paths.runs", "profile": "profile.out", "embed": "out"}[verb]
            assert str(OmegaConf.select(cfg, written)).startswith(("RUNS", "OUT")), overrides


@pytest.mark.parametrize("asked", [["simulatd"], ["simulated core"], ["simulated", "core"]], ids=" and ".join)
@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.parent.name)
def test_what_is_not_one_part_of_a_study_is_refused_by_name(study, asked):
    answer = told(study, *asked)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"ask for one part or for none, not for {asked[0]}; this study has: ")
    assert answer.stdout == ""


def test_all_studies_but_the_first_share_their_head():
    assert [path.parent.name[:3] for path in STUDIES] == ["002", "003", "004", "005", "006"]
