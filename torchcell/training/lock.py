"""One writer per folder: a lock file that names its holder and is touched regularly; only a dead holder loses it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from torchcell.io.errors import InputError, readable
from torchcell.io.locks import alone
from torchcell.io.paths import REMEDIES
from torchcell.training.distributed import slurm

NAME = ".lock"
BEAT_S = 30.0
"""Seconds between two signs of life."""
MISSED = 10
"""Missing signs of life after which a holder on another host counts as dead."""
CLOCK_S = 60.0
"""Difference between the clocks of two hosts that is nothing to speak of, seconds."""
WAIT_S = 60.0
"""Longest time that another process may take to enter a folder, which takes milliseconds."""


@dataclass(frozen=True)
class Holder:
    """The process that writes: on a host, and maybe in a SLURM job.

    Attributes:
        host: Name of the host.
        pid: Number of the process.
        born: When the process started, in ticks since the start of the host: a later process with the same number
            differs in it, and a clock that is set changes nothing.
        space: Namespace of process numbers (Linux), e.g. of a container.
        job: SLURM job, or none.
        restarts: Number of earlier starts of the job by SLURM.
        since: Time at which the folder was taken, for people.
        token: A unique text.
    """

    host: str
    pid: int
    born: float
    space: str
    job: str | None
    restarts: int
    since: str
    token: str

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        try:
            space = os.readlink("/proc/self/ns/pid")
        except OSError:
            space = ""
        since, job = time.strftime("%Y-%m-%d %H:%M:%S"), slurm.job_id()
        born = birth(os.getpid())
        return cls(platform.node(), os.getpid(), born, space, job, slurm.restarts(), since, uuid.uuid4().hex)

    def __str__(self) -> str:
        job = f", SLURM job {self.job}, restart {self.restarts}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"

    def is_gone(self, me: Holder, silent_s: float) -> bool:
        """Whether ``me`` may take over: the process has ended, its job was requeued, or its signs of life have stopped.

        A process on the same host is checked directly; for others only signs of life are known.
        """
        if self.job is not None and self.job == me.job and self.restarts < me.restarts:
            return True
        if (self.host, self.space) == (me.host, me.space):
            return not self._is_alive()
        return silent_s > MISSED * BEAT_S

    def _is_alive(self) -> bool:
        try:
            return birth(self.pid) == self.born and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True


def birth(pid: int) -> float:
    """When a process started: on Linux in ticks since the start of the host, which no clock changes; else in seconds.

    Raises:
        psutil.NoSuchProcess: There is none of this number.
    """
    try:
        about = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return float(psutil.Process(pid).create_time())
    return float(about.rpartition(")")[2].split()[19])  # the name before it may hold anything


class FolderLock:
    """Makes a folder and locks it until ``release``.

    Args:
        folder: The folder.
        leave: Ends this process where another one has taken the folder over; another function in tests.

    Raises:
        InputError: The folder is locked, with its holder; or it can't be written.
    """

    def __init__(self, folder: Path, leave: Callable[[int], None] = os._exit) -> None:
        self.path, self.holder, self._leave = folder / NAME, Holder.here(), leave
        self._ended = threading.Event()
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            self._take()
        except OSError as error:
            in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
            why = "a file is in its way" if in_the_way else str(error.strerror or error)
            remedy = REMEDIES.get(error.errno or 0)
            raise InputError(f"{folder} can't be written: {'; '.join(filter(None, [why, remedy]))}") from error
        threading.Thread(target=self._beat, name="torchcell-lock", daemon=True).start()

    def release(self) -> None:
        """Remove the lock, and the folder if it was made here and is empty."""
        self._ended.set()
        folder = self.path.parent
        with contextlib.suppress(OSError), alone(folder.parent, WAIT_S):
            if _read(self.path) == self.holder:
                self.path.unlink()
            inside = [path for path in folder.iterdir() if path.is_dir()] if self._made else []
            for empty in (*inside, *self._made):
                empty.rmdir()  # fails, and ends this, where something is in it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _take(self) -> None:
        folder = self.path.parent
        folder.parent.mkdir(parents=True, exist_ok=True)
        with alone(folder.parent, WAIT_S):
            folder.mkdir(parents=True, exist_ok=True)
            if self._write():
                return
            silent_s, holder = self._silent_s(), _read(self.path)
            if holder is None and silent_s <= MISSED * BEAT_S:
                raise InputError(f"{folder} is being taken by another process; try again in a moment")
            _refuse_living(folder, holder, self.holder, silent_s)
            self._replace(holder)
        print(readable(f"note: took {folder} over from {holder or 'a process'}, which is gone"), file=sys.stderr)

    def _write(self) -> bool:
        """Create the lock file; False where it is there already."""
        try:
            with self.path.open("x") as file:
                json.dump(asdict(self.holder), file)
        except FileExistsError:
            return False
        return True

    def _replace(self, gone: Holder | None) -> None:
        """Replace the lock file of a dead holder, unless another process just did."""
        aside = self.path.with_name(f"{NAME}-{self.holder.token}")
        self.path.rename(aside)
        holder = _read(aside)
        if holder != gone:
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
        aside.unlink()
        if holder != gone or not self._write():
            raise InputError(f"{self.path.parent} was taken by another process at this moment")

    def _silent_s(self) -> float:
        """Seconds since the last beat, by the clock of the file system."""
        probe = self.path.with_name(f"{NAME}-{self.holder.token}")
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return now - self.path.stat().st_mtime

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            holder = _read(self.path)
            if holder is not None and holder != self.holder and not self._ended.is_set():
                print(readable(f"error: {self.path.parent} was taken over by {holder}; this run ends"), file=sys.stderr)
                self._leave(1)  # at once: what it saved while ending would be in the folder of the other
                return
            with contextlib.suppress(OSError):  # a file system that fails for a while is no reason to end
                os.utime(self.path)


def refuse_locked(folder: Path) -> None:
    """Refuse a locked folder before anything is loaded; it does not lock the folder.

    Raises:
        InputError: The folder is locked, with its holder.
    """
    with contextlib.suppress(FileNotFoundError):
        silent_s = time.time() - (folder / NAME).stat().st_mtime
        _refuse_living(folder, _read(folder / NAME), Holder.here(), silent_s)


def _refuse_living(folder: Path, holder: Holder | None, me: Holder, silent_s: float) -> None:
    if holder is not None and not holder.is_gone(me, silent_s):
        ahead = silent_s < -CLOCK_S
        sign = f"{-silent_s:.0f} s in the future: a clock was set back" if ahead else f"{max(silent_s, 0):.0f} s ago"
        gone = f"; if that process has ended, remove {folder / NAME}" if ahead else ""
        raise InputError(
            f"{folder} is locked by {holder} (last sign of life {sign}): one run at a time writes there. "
            f"Wait for it or end it, or write elsewhere (another seed; out=FOLDER of evaluate){gone}"
        )


def _read(path: Path) -> Holder | None:
    """The holder in a lock file; None where the file is gone or has no content (yet)."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
