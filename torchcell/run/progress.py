"""Signs of life outside the trainer, on the error stream so that tables can be piped: bars, lines in a log, stages."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

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
        print(text, file=sys.stderr, flush=True)


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
    from torchcell.callbacks.pace import Pace

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
    from torchcell.callbacks.pace import duration

    start, wait = time.monotonic(), QUIET_S
    while not over.wait(wait):
        wait = AGAIN_S
        if len(_stages) == place + 1:
            say(f"{what}: at work for {duration(time.monotonic() - start)}")
