"""One run at a time writes into a folder, whatever its config says, and a folder is taken over only from the dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from omegaconf import OmegaConf

from torchcell.io.errors import InputError
from torchcell.training import lock
from torchcell.training.lock import NAME, FolderLock, Holder
from torchcell.training.run_folder import RunFolder, refuse_running, run_path


def held_by(folder: Path, holder: Holder, silent_s: float = 0.0) -> None:
    """Leave the lock of another process behind."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(json.dumps(asdict(holder)))
    then = time.time() - silent_s
    os.utime(folder / NAME, (then, then))


@pytest.fixture
def other() -> Holder:
    """A living process of this host."""
    parent = psutil.Process(os.getppid())
    return replace(Holder.here(), pid=parent.pid, born=lock.birth(parent.pid), token="other")


@pytest.fixture
def dead(other) -> Holder:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    born = lock.birth(child.pid)
    child.wait()
    return replace(other, pid=child.pid, born=born)


def test_a_second_one_is_refused_in_one_line_that_names_the_first(tmp_path):
    folder = tmp_path / "runs" / "x"
    with FolderLock(folder) as mine:
        assert json.loads((folder / NAME).read_text()) == asdict(mine.holder)
        with pytest.raises(
            InputError, match=f"x is locked by process {os.getpid()} on {mine.holder.host}, since "
        ) as said:
            FolderLock(folder)
        assert "\n" not in str(said.value)
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]
    with FolderLock(folder):
        pass


def test_a_folder_in_which_nothing_was_written_goes_away_with_the_parents_that_were_made_for_it(tmp_path):
    with FolderLock(tmp_path / "runs" / "x"):
        (tmp_path / "runs" / "x" / "checkpoints").mkdir()
    assert not (tmp_path / "runs").exists()
    (tmp_path / "mine").mkdir()
    with FolderLock(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


def test_a_process_of_this_host_is_looked_at_however_long_it_was_silent(tmp_path, other, dead, capsys):
    held_by(tmp_path, other, silent_s=1e5)
    with pytest.raises(InputError, match=f"locked by process {other.pid} on .*last sign of life 100000 s ago"):
        FolderLock(tmp_path)
    held_by(tmp_path, dead)
    FolderLock(tmp_path).release()
    assert f"took {tmp_path} over from process {dead.pid}" in capsys.readouterr().err
    held_by(tmp_path, replace(other, born=other.born - 6000))  # the number belongs to a later process now
    FolderLock(tmp_path).release()


def test_one_of_another_host_or_container_is_gone_after_ten_missed_beats(tmp_path, dead):
    for elsewhere in (replace(dead, host="node7"), replace(dead, space="pid:[1]")):
        held_by(tmp_path, elsewhere, silent_s=9.5 * lock.BEAT_S)
        with pytest.raises(InputError, match=f"locked by process {dead.pid} on {elsewhere.host}"):
            FolderLock(tmp_path)
        held_by(tmp_path, elsewhere, silent_s=10.5 * lock.BEAT_S)
        FolderLock(tmp_path).release()


def test_a_requeued_job_takes_over_at_once_and_no_other_job_does(tmp_path, other, monkeypatch):
    held_by(tmp_path, replace(other, host="node7", job="41", restarts=0))
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(InputError, match="on node7, SLURM job 41, restart 0, since"):
        FolderLock(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    with FolderLock(tmp_path) as mine:
        assert (mine.holder.job, mine.holder.restarts) == ("41", 1)
    held_by(tmp_path, replace(other, host="node7", job="41", restarts=1))
    with pytest.raises(InputError, match="restart 1"):
        FolderLock(tmp_path)


def test_a_lock_that_does_not_tell_is_waited_for_and_then_taken(tmp_path):
    (tmp_path / NAME).touch()
    with pytest.raises(InputError, match="is being taken by another process"):
        FolderLock(tmp_path)
    os.utime(tmp_path / NAME, (0, 0))
    FolderLock(tmp_path).release()


def test_the_holder_gives_signs_of_life_and_ends_when_it_was_taken_for_dead(tmp_path, other, monkeypatch, capsys):
    monkeypatch.setattr(lock, "BEAT_S", 0.02)
    left, silent = threading.Event(), threading.Event()
    with FolderLock(tmp_path, leave=lambda status: left.set()):
        os.utime(tmp_path / NAME, (0, 0))
        deadline = time.monotonic() + 30
        while (tmp_path / NAME).stat().st_mtime == 0 and time.monotonic() < deadline:
            silent.wait(0.01)
        assert (tmp_path / NAME).stat().st_mtime > 0
        held_by(tmp_path, other)
        assert left.wait(30)
    assert "was taken over by process" in capsys.readouterr().err
    assert json.loads((tmp_path / NAME).read_text())["token"] == "other", "the other's lock is left alone"


def config(folder: Path, **changes: object):
    base = {"name": "x", "seed": 0, "paths": {"runs": str(folder)}, "overwrite": False, "ckpt_path": None}
    return OmegaConf.create(base | changes)


def test_overwriting_throws_the_old_run_away_only_when_the_new_one_can_start(tmp_path):
    """A misspelt path of the data cost the run that it was to replace: the folder was cleared before they were read."""
    cfg = config(tmp_path, overwrite=True)
    old = run_path(cfg) / "metrics.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    with RunFolder.open(cfg):
        assert old.is_file()  # the data are read here, and may not be there
    assert old.is_file()
    with RunFolder.open(cfg) as folder:
        folder.write_start(cfg, {})
    assert not old.exists()
    assert (old.parent / "config.yaml").is_file()


@pytest.mark.parametrize("wish", [{}, {"overwrite": True}, {"ckpt_path": "auto"}, {"ckpt_path": "last"}])
def test_no_wish_enters_the_folder_of_a_living_run(tmp_path, other, wish):
    """overwrite=true deleted a running run; ckpt_path=auto trained 168 epochs beside one."""
    with RunFolder.open(config(tmp_path)) as folder:
        files = [folder.last, folder.path / "metrics.json", folder.path / "checkpoints" / ".best.1.part.ckpt"]
        for file in files:
            file.touch()
    held_by(folder.path, other)
    for refuse in (RunFolder.open, refuse_running):
        with pytest.raises(InputError, match=f"{folder.path} is locked by process {other.pid}"):
            refuse(config(tmp_path, **wish))
    assert all(file.exists() for file in files)


def test_a_refusal_lets_go_and_overwriting_keeps_the_lock_while_all_else_goes(tmp_path):
    with RunFolder.open(config(tmp_path)) as folder:
        (folder.path / "figures").mkdir()
        for file in (folder.last, folder.path / "figures" / "a.png", folder.path / "metrics.json"):
            file.touch()
    for _ in range(2):
        with pytest.raises(InputError, match="already holds a run"):
            RunFolder.open(config(tmp_path))
    with RunFolder.open(config(tmp_path, overwrite=True)) as folder:
        folder.write_start(config(tmp_path, overwrite=True), {})
        kept = [NAME, "checkpoints", "config.yaml", "environment.json"]
        assert sorted(path.name for path in folder.path.iterdir()) == kept
        with pytest.raises(InputError, match="is locked by"):
            RunFolder.open(config(tmp_path, overwrite=True))


TAKE = """
import sys, time
from pathlib import Path
from torchcell.io.errors import InputError
from torchcell.training.lock import FolderLock
folder, ready = Path(sys.argv[1]), Path(sys.argv[2])
(ready / str(time.time_ns())).touch()
while len(list(ready.iterdir())) < 8:
    time.sleep(0.001)
try:
    with FolderLock(folder):
        (folder / f"{time.time()}-in").touch()
        time.sleep(1.5)
except InputError as error:
    sys.exit(f"error: {error}")
"""


@pytest.mark.long
@pytest.mark.parametrize("left", [False, True])
def test_of_eight_that_come_at_the_same_moment_one_is_in_and_seven_are_told_why_not(tmp_path, dead, left):
    """Also where they all find the lock of a run that is gone."""
    if left:
        held_by(tmp_path / "run", dead)
    (tmp_path / "ready").mkdir()
    command = [sys.executable, "-c", TAKE, str(tmp_path / "run"), str(tmp_path / "ready")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    several = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(8)]
    said = [process.communicate()[1] for process in several]
    assert sorted(process.returncode for process in several) == [0, *[1] * 7], said
    refusals = [text for process, text in zip(several, said, strict=True) if process.returncode]
    assert all(text.count("error: ") == 1 and "Traceback" not in text for text in refusals), refusals
    assert len(list((tmp_path / "run").glob("*-in"))) == 1
    assert not list((tmp_path / "run").glob(f"{NAME}*"))
