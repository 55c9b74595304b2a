"""Signs of life outside the trainer."""

from __future__ import annotations

import threading
import time

import pytest

from torchcell.io import progress
from torchcell.io.progress import Pace, is_first, stage, track


@pytest.fixture
def quick(monkeypatch):
    """Stages speak after hundredths of a second."""
    monkeypatch.setattr(progress, "QUIET_S", 0.05)
    monkeypatch.setattr(progress, "AGAIN_S", 0.05)


def wait_for(capsys, n):
    """What was said, once it has ``n`` lines."""
    text, end = "", time.monotonic() + 20
    while len(text.splitlines()) < n and time.monotonic() < end:
        time.sleep(0.01)
        text += capsys.readouterr().err
    return text.splitlines()


def test_a_long_stage_says_that_it_is_at_work(quick, capsys):
    with stage("loading the data"):
        said = wait_for(capsys, 2)
    assert all(line.startswith("loading the data: at work for ") for line in said)
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == "", "it is over"
    assert not [thread for thread in threading.enumerate() if thread.name == "torchcell-stage"]


def test_a_short_stage_says_nothing(capsys):
    with stage("loading the data"):
        pass
    assert capsys.readouterr().err == ""


def test_only_the_innermost_stage_speaks(quick, capsys):
    with stage("scoring"), stage("baseline ridge"):
        said = wait_for(capsys, 3)
    assert {line.split(":")[0] for line in said} == {"baseline ridge"}


def test_a_stage_that_fails_is_over(quick):
    with pytest.raises(ValueError, match="wrong"), stage("scoring"):
        raise ValueError("wrong")
    assert progress._stages == []


def test_tracked_work_has_a_line_now_and_then_in_a_log(monkeypatch, capsys):
    """It was a bar that was drawn again and again, ten times a second."""
    times = iter(range(0, 10_000, 20))
    monkeypatch.setattr(Pace.__init__, "__defaults__", (30.0, 10.0, lambda: float(next(times))))
    assert list(track(range(10), "embed")) == list(range(10))
    said = capsys.readouterr().err
    assert said.splitlines()[0] == "embed: takes about 3 min"
    assert "\r" not in said
    assert len(said.splitlines()) == 5


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "WORLD_SIZE": "2"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, False),
    ],
)
def test_only_the_first_process_speaks(monkeypatch, environment, first):
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first() is first
