"""Locks on files that processes share: they are waited for with a word, and never for ever."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

POLL_S = 0.02
"""Seconds between two attempts to take a lock."""
SAY_S = 30.0
"""Seconds of waiting after which a line says for what."""
ANSWER_S = 60.0
"""Seconds that a file system has to answer one attempt. A lock server that is gone never does."""


class NoAnswer(TimeoutError):
    """The file system does not say whether a lock is free."""


def take(attempt: Callable[[], bool], release: Callable[[], None], path: Path, wait_s: float) -> None:
    """Take a lock, or raise after a while.

    The attempts are made in a thread of their own: where a lock server hangs, the call itself does not come back.

    Args:
        attempt: Takes the lock and returns True; returns False at once where another process has it.
        release: Undoes an attempt that succeeded after all was given up.
        path: The lock, for the line that says what is waited for.
        wait_s: Longest time that another process may hold it.

    Raises:
        TimeoutError: Another process held it for so long.
        NoAnswer: The file system did not answer.
        OSError: The attempt's own.
    """
    if path.parent in _SILENT:
        raise NoAnswer(_silence())
    ended, given_up, guard = threading.Event(), threading.Event(), threading.Lock()
    failed: list[BaseException] = []
    answered = [time.monotonic()]
    until = answered[0] + wait_s

    def attempts() -> None:
        try:
            while not given_up.is_set():
                taken = attempt()
                answered[0] = time.monotonic()
                with guard:
                    if taken and given_up.is_set():
                        release()
                    if taken or answered[0] >= until:
                        failed.extend(
                            [] if taken else [TimeoutError(f"another process held its lock for {wait_s:g} s")]
                        )
                        ended.set()
                        return
                time.sleep(POLL_S)
        except BaseException as error:
            failed.append(error)
            ended.set()

    threading.Thread(target=attempts, name="torchcell-take", daemon=True).start()
    try:
        _wait(ended, answered, path)
    except BaseException:
        with guard:
            given_up.set()
            if ended.is_set() and not failed:
                release()
        raise
    if failed:
        raise failed[0]


_SILENT: set[Path] = set()
"""Folders whose file system did not answer: it is not waited for again at each of a hundred files."""


def _silence() -> str:
    return f"its file system has not answered for {ANSWER_S:g} s when asked for a lock"


def _wait(ended: threading.Event, answered: list[float], path: Path) -> None:
    said, start = False, time.monotonic()
    while not ended.wait(min(1.0, SAY_S, ANSWER_S)):
        now = time.monotonic()
        if now - answered[0] > ANSWER_S:
            _SILENT.add(path.parent)
            raise NoAnswer(_silence())
        if not said and now - start > SAY_S:
            said = True
            log.warning("waiting for the lock %s: another process may be making what is needed here", path)


@contextmanager
def locked(path: Path, wait_s: float) -> Iterator[None]:
    """Hold a lock file within the block; it stays there afterwards.

    Args:
        path: Of the lock file, in a folder that is there.
        wait_s: Longest time that another process may hold it.

    Raises:
        OSError: It can't be made; as ``TimeoutError``, see ``take``.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)

    def attempt() -> bool:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    take(attempt, lock.release, path, wait_s)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def alone(folder: Path, wait_s: float) -> Iterator[None]:
    """Run the block while no other process does in this folder; where the file system has no locks, at once.

    Args:
        folder: The folder itself is locked, so that no file is left.
        wait_s: Longest time that another process may be in its block.

    Raises:
        OSError: There is no such folder; as ``TimeoutError``, see ``take``.
    """
    descriptor = os.open(folder, os.O_RDONLY)

    def attempt() -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no locks here
            return True
        return True

    def release() -> None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    take(attempt, release, folder, wait_s)  # where it fails a thread may still ask by the descriptor, which stays open
    try:
        yield
    finally:
        os.close(descriptor)
