"""Folders that are full, read-only or another user's; long names; locks that do not come; a clock that is set back."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stderr, suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import psutil
from checkpoints import refusal
from outcome import Outcome, judged
from small import composed, config

from torchcell.collect import main as collect
from torchcell.data import main as data
from torchcell.embed import embed
from torchcell.evaluate import evaluate
from torchcell.io import locks, paths
from torchcell.io.cache import kept, read_arrays, write_arrays
from torchcell.io.errors import InputError
from torchcell.io.file_facts import remembered
from torchcell.knowledge_graph.embed import main as validate
from torchcell.predict import predict
from torchcell.profile import profile
from torchcell.train import train
from torchcell.training import lock
from torchcell.training.entry import explain
from torchcell.training.lock import FolderLock, Holder

ADVICE = {"full": "make room", "read-only": "name a folder that you may write to", "long": "choose a shorter one"}


@contextmanager
def spoilt(folder: Path, how: str) -> Iterator[bool]:
    """A folder that is full or read-only within the block; False where this machine lets us make none.

    Root may write where nobody else may, so for root it is a file system of its own.
    """
    folder.mkdir(parents=True)
    if os.getuid() and how == "read-only":
        folder.chmod(0o555)
        yield True
        folder.chmod(0o755)
        return
    options = {"full": "size=4k", "read-only": "ro"}[how] + ",mode=755"  # by default all may write there
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        made = False
    if made and how == "full":
        with suppress(OSError), (folder / "rest").open("wb") as file:
            file.write(b"0" * 2**16)
    try:
        yield made
    finally:
        if made:
            subprocess.run(["umount", str(folder)], check=True)


def said_by(call: Callable[[], Any]) -> str:
    """The line that a user would read; empty where the call ends well."""
    heard = StringIO()
    try:
        with redirect_stderr(heard):
            call()
    except (InputError, OSError) as error:
        return f"error: {explain(error, 'config', [])}"
    return heard.getvalue().strip()


def verbs(out: str) -> dict[str, Callable[[], Any]]:
    """Each verb that writes, told to write at ``out``; what they would read is not there."""
    return {
        "train": lambda: train(config(Path(out))),
        "predict": lambda: predict(composed("predict", "ckpt=no", f"out={out}/x.csv", "perturbations=no.csv")),
        "evaluate": lambda: evaluate(composed("evaluate", "ckpt=no", f"out={out}/x")),
        "embed": lambda: embed(composed("embed", "ckpt=no", f"out={out}/x.h5ad")),
        "profile": lambda: profile(composed("profile", f"profile.out={out}/x")),
        "collect": lambda: collect([".", "-o", f"{out}/x.csv"]),
        "import-gct": lambda: data(["import-gct", "no.gct", f"{out}/x.h5ad"]),
        "validate": lambda: validate(["no.csv", "--out", f"{out}/x.html"]),
    }


def unwritable(folder: Path) -> Outcome:
    """Every verb that writes, into a read-only folder and under a name of 300 letters: one line with fitting advice."""
    checks, tries = {}, 0
    with spoilt(folder / "closed", "read-only") as made:
        places = {"long": str(folder / ("n" * 300)), **({"read-only": str(folder / "closed")} if made else {})}
        for how, out in places.items():
            for verb, call in verbs(out).items():
                said = said_by(call)
                fine = said.count("\n") == 0 and ADVICE[how] in said and "ckpt_path=last" not in said
                checks[f"{verb}, {how}: {said}"] = fine
                tries += 1
    left = [path.name for path in folder.iterdir() if path.name not in ("closed", "said.txt")]
    checks[f"left behind: {left}"] = not left
    fault = "a read-only folder; a name of 300 letters" if made else "a name of 300 letters (no read-only folder here)"
    return judged(f"{fault}: every verb that writes", tries, "nothing: refused before the work", checks)


def no_room(folder: Path) -> Outcome:
    """Runs folder and cache on a file system that is full, and a cache that is read-only or another user's."""
    checks, tries = {}, 0
    with spoilt(folder / "full", "full") as made:
        if made:
            said = said_by(lambda: train(config(folder / "full" / "runs")))
            checks[f"a run in a full folder: {said}"] = ADVICE["full"] in said.lower() and "ckpt_path=last" not in said
            tries += 1
            checks |= {f"full cache: {name}": fine for name, fine in _cache(folder / "full").items()}
            tries += 1
    with spoilt(folder / "closed", "read-only") as closed:
        if closed:
            checks |= {f"read-only cache: {name}": fine for name, fine in _cache(folder / "closed").items()}
            tries += 1
    with mock.patch.object(paths, "_user_cache", return_value=str(folder / "full")):
        anothers = mock.patch.object(paths.os, "getuid", return_value=os.getuid() + 1)
        checks |= {f"another user's cache: {name}": fine for name, fine in _cache(folder / "full", anothers).items()}
    lost = "what a cache would have kept" if made and closed else "what a cache would have kept (no mounts here)"
    return judged("full runs folder; full, read-only, another user's cache", tries + 1, lost, checks)


def _cache(home: Path, seen_as: AbstractContextManager[Any] | None = None) -> dict[str, bool]:
    """Whether work goes on without a cache, and one line says so; the folder is looked for within ``seen_as``."""
    paths._say.cache_clear()
    content = {"x": np.arange(10_000)}
    with mock.patch.dict(os.environ, {"TORCHCELL_DATA": str(home)}), warned() as said:
        with seen_as or nullcontext():
            place = paths.own_home() / "parsed"
        found = [kept(place / name, read_arrays, lambda: content, _write) for name in ("a.npz", "b.npz")]
    return {
        "other numbers": all(np.array_equal(one["x"], content["x"]) for one in found),
        f"not one warning: {said}": len(said) == 1 and "nothing is kept for the next run" in said[0],
        "a half file": not list(home.rglob(".*.part*")),
    }


def _write(path: Path, content: dict[str, np.ndarray]) -> None:
    write_arrays(path, **content)


@contextmanager
def warned() -> Iterator[list[str]]:
    """What torchcell warns of within the block."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("torchcell")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def lock_server(folder: Path) -> Outcome:
    """A lock server that does not answer: a cache, a run and a search go on or end, with one line, and none hangs."""
    from filelock import FileLock

    from torchcell.training.study import lock_study

    ended = threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        ended.wait(120)
        raise OSError("the server came back")

    begun = time.monotonic()
    with ExitStack() as stack:
        stack.callback(ended.set)
        stack.enter_context(mock.patch.object(locks, "ANSWER_S", 1.0))
        stack.enter_context(mock.patch.object(locks.fcntl, "flock", hang))
        stack.enter_context(mock.patch.object(FileLock, "acquire", hang))
        checks = _cache(folder / "cache")
        for name, call in {
            "run": lambda: FolderLock(folder / "runs" / "x"),
            "search": lambda: lock_study(folder / "study.lock"),
        }.items():
            said = refusal(call)
            checks[f"{name}: {said}"] = "has not answered" in said and "\n" not in said
    took = time.monotonic() - begun
    checks[f"it took {took:.0f} s"] = took < 60
    return judged("a lock server that hangs", 3, "what a cache would have kept", checks)


def clock_back(folder: Path) -> Outcome:
    """A clock that is set back by an hour: a living run keeps its folder, a dead one loses it, facts are found anew."""
    parent = psutil.Process(os.getppid())
    living = replace(Holder.here(), pid=parent.pid, born=lock.birth(parent.pid), token="other")
    dead = subprocess.Popen(["true"])
    born = lock.birth(dead.pid)
    dead.wait()
    created, checks = psutil.Process.create_time, {}
    clock = mock.patch.object(psutil.Process, "create_time", lambda self: created(self) - 3600)
    now = mock.patch.object(time, "time_ns", functools.partial(_hour_ago, time.time_ns))
    with clock, now, mock.patch.object(paths, "data_home", return_value=folder / "data"):
        _locked(folder / "living", living)
        said = refusal(lambda: FolderLock(folder / "living"))
        checks[f"the folder of a living run: {said}"] = "a clock was set back" in said and "\n" not in said
        _locked(folder / "dead", replace(living, pid=dead.pid, born=born))
        checks["the folder of a dead run"] = not refusal(lambda: FolderLock(folder / "dead").release())
        path = folder / "facts"
        for text in ("one", "two"):
            path.write_text(text)
            checks[f"a fact of {text}"] = remembered(path, "content", path.read_text) == text
    return judged("a clock is set back by an hour", 4, "nothing", checks)


def _hour_ago(clock: Callable[[], int]) -> int:
    return clock() - 3600 * 10**9


def _locked(folder: Path, holder: Holder) -> None:
    """The lock of another process, whose last sign of life is in the future."""
    from dataclasses import asdict
    from json import dumps

    folder.mkdir()
    (folder / lock.NAME).write_text(dumps(asdict(holder)))
    os.utime(folder / lock.NAME, (time.time() + 3600,) * 2)


def leftovers(folder: Path) -> Outcome:
    """What killed processes left in caches and run folders is gone once the same is written again."""
    half = [folder / ".a.0123abcd.part.npz"]
    half[0].write_bytes(b"half")
    kept(folder / "a.npz", read_arrays, lambda: {"x": np.arange(3)}, _write)
    home = mock.patch.object(paths, "data_home", return_value=folder)
    with home, mock.patch("torchcell.io.file_facts.SETTLED_NS", 0):
        (folder / "file").write_text("x")
        remembered(folder / "file", "what", lambda: "fact")
        (fact,) = (folder / "facts").iterdir()
        half.append(fact.with_name(f".{fact.name}.part"))
        fact.rename(half[1])
        remembered(folder / "file", "what", lambda: "fact")
    checks = {f"{path.name} stays": not path.exists() for path in half}
    return judged("half files of killed processes in a cache", len(half), "nothing", checks)


PARTS = {"train": "regression", "val": "regression", "test": "binary"}


def constant(folder: Path, parts: Sequence[str] = tuple(PARTS)) -> Outcome:
    """A target with one value, or one class, in a part of the split: a note in the log and in the report."""
    draw = np.random.default_rng(0)
    pairs = [(i, j) for i in range(24) for j in range(i)][:200]
    part = np.repeat(["train", "val", "test"], [140, 30, 30])
    ids = [f"s{i}" for i in range(200)]
    pd.DataFrame({"sample_id": ids, "part": part}).to_csv(folder / "split.csv", index=False)
    checks = {}
    for name in parts:
        task = PARTS[name]
        y = draw.normal(size=200) if task == "regression" else (draw.normal(size=200) > 0).astype(float)
        y[part == name] = 1.0
        table = pd.DataFrame({"sample_id": ids, "genes": [f"G{i}|G{j}" for i, j in pairs], "y": y})
        table.to_csv(folder / f"{name}.csv", index=False)
        given = [f"data.record.path={folder}/{name}.csv", "split=file", f"split.file={folder}/split.csv"]
        given += [f"data.record.task={task}", "trainer.max_epochs=1", "baselines=none", "evaluation.n_boot=10"]
        heard = StringIO()
        with mock.patch("sys.stdout", heard):
            found = train(composed("config", "data=screen", *given, f"paths.runs={folder}/runs", f"name={name}"))
        note = f"in the {name} part 'y' has one {'class' if task == 'binary' else 'value'} only"
        checks[f"{name}: no line in the log"] = note in " ".join(heard.getvalue().split())
        page = (found.folder.path / "report.html").read_text().replace("&#39;", "'")
        checks[f"{name}: no note in the report"] = note in page
    return judged(
        "a target with one value or one class in a part", len(parts), "the metrics that are undefined", checks
    )
