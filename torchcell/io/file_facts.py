"""What was found out about a file by reading all of it: remembered until the file changes."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from torchcell.io.errors import InputError
from torchcell.io.paths import is_own, make_own, own_home, say_unwritable

SETTLED_NS = 2 * 10**9
"""Age from which on a file's times tell whether it changed: younger ones may change again within the clock's tick."""


MODES = ("cached", "full")


_read_again: ContextVar[bool] = ContextVar("read_again", default=False)


@contextmanager
def verifying(mode: str) -> Iterator[None]:
    """Within the block nothing that is remembered counts, if ``mode`` is ``full``: every file is read again.

    Raises:
        InputError: Neither ``cached`` nor ``full``.
    """
    if mode not in MODES:
        raise InputError(f"data.verify={mode!r}: must be {' or '.join(MODES)}")
    token = _read_again.set(mode == "full")
    try:
        yield
    finally:
        _read_again.reset(token)


def remembered(path: Path | Sequence[Path], what: str, find: Callable[[], str]) -> str:
    """The text that ``find`` returns about a file or folder, found once for its path, inode, size and times.

    It is kept in the user's own cache, since whoever can write there can say what they like of a file.

    Args:
        path: The file, or a folder with all that is in it; or several.
        what: Which fact; part of the key.
        find: Reads the file. What it raises is not remembered.
    """
    before = state_of(path)
    return known_by(f"{what}\n{before[0]}", find, lambda: state_of(path)[0] == before[0] and is_settled(before))


def known_by(key: str, find: Callable[[], str], lasts: Callable[[], bool] = lambda: True) -> str:
    """The text that ``find`` returns, found once for a key; it is kept if it ``lasts``."""
    fact = _place(key)
    if not reads_again() and fact.is_file() and is_own(fact.parent):
        return fact.read_text()
    found = find()
    if lasts():
        _keep(fact, found)
    return found


def place_of(what: str, state: str) -> Path:
    """Where a fact about a file in this state is kept."""
    return _place(f"{what}\n{state}")


def _place(key: str) -> Path:
    return own_home() / "facts" / hashlib.sha256(key.encode()).hexdigest()[:32]


def reads_again() -> bool:
    """Whether nothing that is remembered counts, see ``verifying``."""
    return _read_again.get()


def settled_state(path: Path) -> str:
    """Path, inode, size and times of a file; empty where it changed so lately that it may change unseen."""
    state = state_of(path)
    return state[0] if is_settled(state) else ""


def is_settled(state: tuple[str, int]) -> bool:
    """Whether the file's times are old enough to tell of a change."""
    return abs(time.time_ns() - state[1]) > SETTLED_NS


def state_of(path: Path | Sequence[Path]) -> tuple[str, int]:
    """Path, inode, size and times of a file, or of all files of a folder, as text; and the latest of the times."""
    given = [path] if isinstance(path, Path) else path
    files = [file for one in given for file in (sorted(one.rglob("*")) if one.is_dir() else [one])]
    stats = [(str(file.resolve()), file.stat()) for file in files]
    lines = [f"{name}|{s.st_dev}|{s.st_ino}|{s.st_size}|{s.st_mtime_ns}|{s.st_ctime_ns}" for name, s in stats]
    return "\n".join(lines), max((max(s.st_mtime_ns, s.st_ctime_ns) for _, s in stats), default=0)


def _keep(path: Path, text: str) -> None:
    """Write a fact whole or not at all; what a killed process left of it is written over, by the same name."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        make_own(path.parent)
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):  # another process has just put the same text there
            temporary.replace(path)
    except OSError as error:
        say_unwritable(own_home(), error)
