"""A lock that does not come ends a command with a line, and never hangs it."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from pathlib import Path

import filelock
import numpy as np
import pytest

from torchcell.io import cache, locks, paths
from torchcell.io.cache import kept, read_arrays, write_arrays
from torchcell.io.errors import InputError
from torchcell.io.locks import NoAnswer, alone, locked
from torchcell.training import lock
from torchcell.training.lock import FolderLock
from torchcell.training.study import lock_study


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """Minutes become a part of a second."""
    monkeypatch.setattr(locks, "SAY_S", 0.1)
    monkeypatch.setattr(locks, "ANSWER_S", 0.3)
    monkeypatch.setattr(cache, "WAIT_S", 0.5)
    monkeypatch.setattr(lock, "WAIT_S", 0.5)
    paths._say.cache_clear()
    yield
    paths._say.cache_clear()


@pytest.fixture
def hanging(monkeypatch):
    """A lock server that never answers, until the test has ended."""
    ended, flock, acquire = threading.Event(), fcntl.flock, filelock.FileLock.acquire

    def hang(*_: object, **__: object) -> None:
        ended.wait(30)
        raise OSError("the server came back")

    monkeypatch.setattr(fcntl, "flock", lambda file, how: flock(file, how) if how == fcntl.LOCK_UN else hang())
    monkeypatch.setattr(filelock.FileLock, "acquire", hang)
    yield
    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    ended.set()


def content() -> dict[str, np.ndarray]:
    return {"x": np.arange(3)}


def ask(path: Path) -> dict[str, np.ndarray]:
    return kept(path, read_arrays, content, lambda file, made: write_arrays(file, **made))


def test_a_cache_goes_on_without_a_lock_server_that_hangs(hanging, tmp_path, caplog):
    start = time.monotonic()
    for i in range(100):
        assert ask(tmp_path / f"{i}.npz")["x"].tolist() == [0, 1, 2]
    assert time.monotonic() - start < 20
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len([line for line in said if "its file system has not answered for 0.3 s" in line]) == 1


def test_a_run_and_a_search_end_with_one_line_where_the_lock_server_hangs(hanging, tmp_path):
    for take in (lambda: FolderLock(tmp_path / "runs" / "x"), lambda: lock_study(tmp_path / "study.lock")):
        with pytest.raises(InputError, match=f"{tmp_path}.*: its file system has not answered for 0.3 s") as said:
            take()
        assert "\n" not in str(said.value)
    assert not (tmp_path / "runs" / "x").exists()


def test_what_another_process_holds_too_long_is_a_line_too(tmp_path, caplog):
    """A process that was stopped (Ctrl-Z) held the folder's lock, and all others waited for ever without a word."""
    (tmp_path / "runs").mkdir()
    descriptor = os.open(tmp_path / "runs", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(
            InputError, match=f"{tmp_path}/runs/x can't be written: another process held its lock for 0.5 s"
        ):
            FolderLock(tmp_path / "runs" / "x")
    finally:
        os.close(descriptor)
    with filelock.FileLock(tmp_path / "a.npz.lock"):
        caplog.clear()
        assert ask(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]
    said = " ".join(record.getMessage() for record in caplog.records)
    assert f"waiting for the lock {tmp_path}/a.npz.lock" in said
    assert "another process held" in said
    assert not (tmp_path / "a.npz").exists()
    ask(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").is_file(), "the lock is free again"


def test_a_lock_that_comes_late_is_given_back(tmp_path, monkeypatch):
    """After all was given up for it: else no other process would get it."""
    held, given_back = threading.Event(), threading.Event()

    def late() -> bool:
        time.sleep(0.6)
        held.set()
        return True

    with pytest.raises(NoAnswer):
        locks.take(late, given_back.set, tmp_path / "a.lock", 10)
    assert held.wait(10)
    assert given_back.wait(10)


def test_a_lock_is_held_within_the_block_and_free_behind_it(tmp_path):
    for hold in (lambda: locked(tmp_path / "a.lock", 0.0), lambda: alone(tmp_path, 0.0)):
        with hold(), pytest.raises(TimeoutError, match="another process held"), hold():
            pytest.fail("two are in")
        with hold():
            pass


def test_what_killed_processes_left_in_a_cache_goes_away_with_the_next_write(tmp_path, monkeypatch):
    """A ``.part`` file of gigabytes stayed for ever."""
    mine = tmp_path / f".{'a' * 50}.0123abcd.part.npz"
    others = [tmp_path / ".b.0123abcd.part.npz", tmp_path / "a.part.npz"]
    for path in (mine, *others):
        path.write_bytes(b"half")
    ask(tmp_path / f"{'a' * 60}.npz")
    assert not mine.exists()
    assert all(path.exists() for path in others), "they are of another file, which may be written now"


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / f"{'ä' * 123}.json"
    cache.write_json(path, {})
    assert path.is_file()
    with pytest.raises(OSError, match="File name too long") as failed:
        cache.write_json(tmp_path / f"{'a' * 300}.json", {})
    assert "choose a shorter one" in paths.unwritable(failed.value)
