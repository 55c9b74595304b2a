"""Caches: a file that was damaged, and two jobs that fill one at a time."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from outcome import Outcome, judged

from torchcell.io.cache import kept, read_arrays, write_arrays
from torchcell.io.errors import InputError


def _content() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {"numbers": draw.normal(size=(40, 8)).astype(np.float32), "names": np.array([f"g{i}" for i in range(40)])}


def _write(path: Path, content: dict[str, np.ndarray]) -> None:
    write_arrays(path, **content)


def damaged(folder: Path, tries: int = 500) -> Outcome:
    """One byte changed, or the end cut off, at a random place: never other numbers, and the cache mends itself."""
    whole, draw, path = _content(), random.Random(0), folder / "parsed" / "small.npz"
    write_arrays(path, **whole)
    good, noticed, wrong, builds = path.read_bytes(), 0, [], []

    def make() -> dict[str, np.ndarray]:
        builds.append(path)
        return whole

    for number in range(tries):
        at, raw = draw.randrange(len(good)), bytearray(good)
        if number % 5:
            raw[at] ^= 1 << draw.randrange(8)
        else:
            raw = raw[:at]
        path.write_bytes(raw)
        try:
            same = _equal(read_arrays(path), whole)
        except InputError as error:
            noticed += 1
            same = str(path) in str(error)
        if not same or not _equal(kept(path, read_arrays, make, _write), whole):
            wrong.append(f"byte {at} of {len(good)}")
    lost = f"nothing: {noticed} noticed and made again, {tries - noticed} in bytes that hold no data"
    return Outcome("a byte of a cache file flipped, or its end cut off", tries, lost, tuple(wrong))


def _equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


def shared(folder: Path, tries: int = 3, jobs: int = 2) -> Outcome:
    """Jobs that ask for the same file at a time; then one is killed while it builds, and another one comes."""
    fork = multiprocessing.get_context("fork")
    builds, whole, killed = [], [], []
    for number in range(tries):
        place = folder / f"try{number}"
        processes = [fork.Process(target=_ask, args=(place, 0.3)) for _ in range(jobs)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        builds.append(len((place / "builds").read_text()))
        whole.append(all(process.exitcode == 0 for process in processes))
        dying = fork.Process(target=_ask, args=(place / "killed", 60.0))
        dying.start()
        while not (place / "killed" / "builds").is_file():
            time.sleep(0.01)
        dying.kill()
        dying.join()
        start = time.monotonic()
        after = fork.Process(target=_ask, args=(place / "killed", 0.0))
        after.start()
        after.join(30)
        killed.append(after.exitcode == 0 and time.monotonic() - start < 30)
    checks = {
        "built more than once": all(count == 1 for count in builds),
        "a job read something else": all(whole),
        "the lock outlived the job that was killed with it": all(killed),
    }
    return judged(f"{jobs} jobs fill one cache; the one that builds is killed", tries, "nothing: built once", checks)


def _ask(folder: Path, build_s: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def make() -> dict[str, np.ndarray]:
        with (folder / "builds").open("a") as file:
            file.write("x")
        time.sleep(build_s)
        return _content()

    found: dict[str, Any] = kept(folder / "cache.npz", read_arrays, make, _write)
    os._exit(0 if _equal(found, _content()) else 1)
