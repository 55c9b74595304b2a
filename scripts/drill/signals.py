"""Ctrl-C and SIGTERM in one process and in two: one line that says what is saved, and no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
from outcome import Outcome, judged
from small import SMALL

ENDLESS = ("trainer.max_epochs=100000", "trainer.early_stopping.patience=100000")
END_S = 60.0
WAYS = (
    ("Ctrl-C", signal.SIGINT, ()),
    ("Ctrl-C", signal.SIGINT, ("trainer=ddp_cpu",)),
    ("SIGTERM", signal.SIGTERM, ("trainer=ddp_cpu",)),
)
"""A terminal sends the first to all processes of a command, and a person the other one to the first process."""


def run(folder: Path, ways: tuple[tuple[str, int, tuple[str, ...]], ...] = WAYS) -> Outcome:
    """Each signal in training; then Ctrl-C at once, while the program is still loading."""
    checks: dict[str, bool] = {}
    for number, (name, sent, overrides) in enumerate(ways):
        place = folder / str(number)
        what = f"{name} in {2 if overrides else 1} process(es)"
        checks |= {f"{what}: {said}": fine for said, fine in _stopped(place, sent, overrides).items()}
    checks |= {f"Ctrl-C while loading: {said}": fine for said, fine in _at_once(folder / "loading").items()}
    lost = "nothing: the epoch that it came in is saved and goes on"
    return judged("Ctrl-C and SIGTERM, in one and in two processes", len(ways) + 1, lost, checks)


def start(folder: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """A run by the user's command, in a process group of its own as at a terminal; its words go into a file."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "torchcell.train", *SMALL, *overrides, f"paths.runs={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True, preexec_fn=_heard
        )


def _heard() -> None:
    """Ctrl-C is heard, also where the drill itself runs in the background of a shell."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _stopped(folder: Path, sent: int, overrides: tuple[str, ...]) -> dict[str, bool]:
    process = start(folder, *ENDLESS, *overrides)
    until = time.monotonic() + 300
    while not list(folder.rglob("last.ckpt")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    took = _end(process, sent)
    _, left = psutil.wait_procs(children, timeout=10)
    words = (folder / "log.txt").read_text().splitlines()
    said = [line for line in words if line.startswith(signal.Signals(sent).name)]
    found = list(folder.rglob("last.ckpt"))
    return {
        f"it took {took:.0f} s": took < END_S,
        f"{len(left)} process(es) were left": not left,
        f"status {process.returncode}": process.returncode == 128 + sent,
        f"not one line that says how to go on: {said}": len(said) == 1 and "go on with ckpt_path=last" in said[0],
        f"a traceback: {words[-1:]}": not any("Traceback" in line for line in words),
        "nothing was saved": len(found) == 1 and torch.load(found[0], weights_only=True)["global_step"] > 0,
    }


def _at_once(folder: Path) -> dict[str, bool]:
    process = start(folder)
    while not (folder / "log.txt").stat().st_size and process.poll() is None:
        time.sleep(0.05)
    took = _end(process, signal.SIGINT)
    words = (folder / "log.txt").read_text().splitlines()
    return {
        f"it took {took:.0f} s": took < END_S,
        f"status {process.returncode}": process.returncode == 130,
        f"not one line: {words}": [line for line in words if line.startswith("error: interrupted")] == words[1:],
    }


def _end(process: subprocess.Popen[bytes], sent: int) -> float:
    """Send the signal as it comes in life, and wait; seconds until the end."""
    begun = time.monotonic()
    if process.poll() is None:
        os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return time.monotonic() - begun
