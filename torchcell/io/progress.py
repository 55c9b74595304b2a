"""What a user sees while something takes long: stages, bars, and how long it will take."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from torchcell.io.errors import readable


class Pace:
    """Gives a line of progress when one is due: after each tenth of the work or each ``every_s``, whichever is rarer.

    The first line comes after ``first_s`` and says how long the whole will take, if that is longer than ``every_s``.

    Args:
        what: Name of the work, the beginning of each line.
        total: Number of its pieces; none: not known, then lines come by time alone.
        every_s: Least seconds between two lines.
        first_s: Seconds until the first estimate.
        clock: Seconds, rising.

    Example:
        >>> times = iter([0.0, 10.0, 40.0, 50.0])
        >>> pace = Pace("epoch 1 of 3", total=10, clock=lambda: next(times))
        >>> [pace.line(done) for done in (2, 8, 10)]
        ['epoch 1 of 3: takes about 50 s', 'epoch 1 of 3: 80 %, about 10 s left', None]
    """

    def __init__(
        self,
        what: str,
        total: float | None,
        every_s: float = 30.0,
        first_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.every_s, self.first_s = what, total, every_s, first_s
        self._clock = clock
        self._start = self._said_at = clock()
        self._said_share = 0.0
        self._is_first = True

    def line(self, done: int) -> str | None:
        """The line that is due when ``done`` pieces are done, or none."""
        now = self._clock()
        spent = now - self._start
        share = done / self.total if self.total else None
        if share is not None and share >= 1:
            return None
        if self._is_first and spent >= self.first_s and share:
            self._is_first = False
            if spent / share > self.every_s:
                return self._told(now, share, f"takes about {duration(spent / share)}")
        if now - self._said_at < self.every_s:
            return None
        if share is None:
            return self._told(now, 0.0, f"{done:,} done in {duration(spent)}")
        if share - self._said_share < 0.1:
            return None
        return self._told(now, share, f"{share:.0%}, about {duration(spent / share - spent)} left".replace("%", " %"))

    def _told(self, now: float, share: float, text: str) -> str:
        self._said_at, self._said_share = now, share
        return f"{self.what}: {text}"


def duration(seconds: float) -> str:
    """Seconds in words: ``12 s``, ``4 min``, ``2 h 5 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


T = TypeVar("T")


QUIET_S = 30.0
"""Seconds that a stage may take without a word."""


AGAIN_S = 60.0
"""Seconds between its later words."""


_stages: list[str] = []
"""Of this process, the innermost last; it alone speaks."""


def say(text: str) -> None:
    """Print a line on the error stream, in the first process only."""
    if is_first():
        print(readable(text), file=sys.stderr, flush=True)


def is_first() -> bool:
    """Whether this is the first of the processes that a launcher has started, as far as the environment tells."""
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    return "SLURM_STEP_NUM_TASKS" not in os.environ or os.environ.get("SLURM_PROCID", "0") == "0"


def track(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield ``items`` and say how many of them are done: a bar on a terminal, a line now and then in a log file.

    Args:
        items: Work to be done; silent where there is a single item.
        what: Name of the work.
    """
    total = len(items) if isinstance(items, Sized) else None
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=what, total=total, leave=False, disable=total is not None and total < 2)
        return

    pace = Pace(what, total)
    for done, item in enumerate(items, 1):
        yield item
        line = pace.line(done)
        if line is not None:
            say(line)


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Name work of unknown length: after half a minute, and each minute from then, a line says that it is going on.

    Stages may hold others; only the innermost speaks.
    """
    over = threading.Event()
    place = len(_stages)
    _stages.append(what)
    thread = threading.Thread(target=_speak, args=(what, place, over), name="torchcell-stage", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        del _stages[place:]
        thread.join()


def _speak(what: str, place: int, over: threading.Event) -> None:

    start, wait = time.monotonic(), QUIET_S
    while not over.wait(wait):
        wait = AGAIN_S
        if len(_stages) == place + 1:
            say(f"{what}: at work for {duration(time.monotonic() - start)}")
