"""One of two processes of a run is killed: the other one must end soon, by itself, and say why."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from outcome import Outcome, judged
from small import SMALL

END_S = 60.0


def run(folder: Path, start_s: float = 300.0) -> Outcome:
    """Start two processes by the user's command, kill -9 the second one in training, and watch the first one.

    Args:
        folder: For the run and its words.
        start_s: Longest that the first epoch may take to come.
    """
    overrides = [*SMALL, "trainer=ddp_cpu", "trainer.max_epochs=2000", "trainer.early_stopping.patience=2000"]
    command = [sys.executable, "-m", "torchcell.train", *overrides, f"paths.runs={folder}"]
    with (folder / "log.txt").open("w") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"})
        every = [psutil.Process(first.pid)]
        try:
            until = time.monotonic() + start_s
            while not list(folder.rglob("last.ckpt")) and first.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
            every += every[0].children(recursive=True)
            trained = bool(list(folder.rglob("last.ckpt")))
            workers = [one for one in every[1:] if _works(one)]
            if workers:
                workers[-1].kill()
            killed = time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                first.wait(END_S)  # by its own handle: psutil would take its status away
            others = [one for one in every[1:] if one not in workers[-1:]]
            _, left = psutil.wait_procs(others, timeout=max(0.0, END_S - (time.monotonic() - killed)))
            left += [every[0]] if first.poll() is None else []
            took = time.monotonic() - killed
        finally:
            for one in every:
                if one.is_running():
                    one.kill()
            first.wait()
    said = [line for line in (folder / "log.txt").read_text().splitlines() if line.startswith("error:")]
    checks = {
        "it never trained": trained,
        "no second process was found": bool(workers),
        f"{len(left)} process(es) were still there after {END_S:.0f} s": not left,
        f"it left with {first.returncode}": first.returncode not in (0, None),
        "it did not say why": any("process" in line for line in said),
    }
    return judged("one of two DDP processes dies", 1, f"the epoch it came in; all ended after {took:.0f} s", checks)


def _works(process: psutil.Process) -> bool:
    """Whether it is one of the processes that train, not a server of the interpreter's."""
    try:
        words = " ".join(process.cmdline())
        return "resource_tracker" not in words and process.memory_info().rss > 100 * 2**20
    except psutil.Error:
        return False
