"""One process of a run is lost: the others end soon, with a sentence and a status, however they were started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from torch import distributed

from torchcell.training.distributed import processes as watch
from torchcell.training.distributed.processes import Watch

SCRIPT = str(Path(__file__).with_name("lost_process.py"))
SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "127.0.0.1"}


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "RANK", "MASTER"))}
    mine |= {"OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, env=mine, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def free_port() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return str(held.getsockname()[1])


@pytest.fixture(scope="module")
def ended() -> Iterator[dict[str, tuple[int, str]]]:
    """Status and words of the survivors of each launcher; all at once, since starting takes longest."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    port = free_port()
    tasks = [{**SRUN, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "MASTER_PORT": port} for rank in (0, 1)]
    started = {
        "own": start([sys.executable, SCRIPT, "1", "0"]),
        "torchrun": start([*torchrun, SCRIPT, "0", "0"]),
        "srun": start([sys.executable, SCRIPT, "0", "1"], **tasks[1]),
    }
    victim = start([sys.executable, SCRIPT, "0", "1"], **tasks[0])
    try:
        yield {name: (process.wait(600), process.communicate()[0]) for name, process in started.items()}
        assert victim.wait(1) == -9
    finally:
        for process in (*started.values(), victim):
            process.kill()


@pytest.mark.long
@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        ("own", "process 1 of 2 was killed by signal 9 (out of memory?); the others end"),
        ("torchrun", "Signal 9 (SIGKILL)"),  # torchrun itself is quicker than any sign of life
        ("srun", "process 0 of 2 has given no sign of life for 4 s"),
    ],
)
def test_when_one_process_is_killed_the_others_end_and_say_why(ended, launcher, said):
    status, words = ended[launcher]
    assert said in " ".join(words.split()), words
    assert status not in (0, None)


# The watch alone ------------------------------------------------------------------------------------


@pytest.fixture
def pair(monkeypatch) -> Iterator[tuple[Watch, Watch, list[int]]]:
    """Two watches that have met, in one process; what they would leave with."""
    monkeypatch.setattr(watch, "LOOK_S", 0.02)
    monkeypatch.setattr(watch, "GRACE_S", 0.05)
    host = distributed.TCPStore("127.0.0.1", 0, 2, True, timedelta(seconds=20), wait_for_workers=False)
    left: list[int] = []
    both = tuple(Watch(rank, 2, 0.4, leave=left.append) for rank in (0, 1))
    store = distributed.PrefixStore("run", host)
    store.add("beat/1", 1)
    both[0].meet(store.clone(), 10)
    both[1].meet(store.clone(), 10)
    yield (*both, left)
    for one in both:
        one.stop()


def test_nothing_is_found_while_both_live_and_they_leave_in_order(pair):
    first, second, left = pair
    time.sleep(1)
    assert first.verdict(0) is second.verdict(0) is None
    second.leave_in_order(1)
    time.sleep(1)
    assert first.verdict(0) is None, "one that has left in order is not lost"
    started = time.monotonic()
    first.leave_in_order(30)
    assert time.monotonic() - started < 5
    assert left == []


def test_a_silent_process_is_found_and_all_are_told(pair):
    first, second, left = pair
    second.stop()
    said = first.verdict(20)
    assert said is not None
    assert said.startswith("process 1 of 2 has given no sign of life for 0.4 s")
    time.sleep(0.5)
    assert left == [1], "the first leaves, the silent one has stopped its own watch"


def test_a_process_that_fails_tells_the_others_why_and_the_first_word_counts(pair):
    first, second, left = pair
    assert second.report("no memory left") is None
    assert first.verdict(20) == "process 1 of 2 failed: no memory left"
    assert first.report("connection closed") == "process 1 of 2 failed: no memory left"
    time.sleep(0.5)
    assert left == [1]


def test_a_process_that_never_comes_is_named():
    host = distributed.TCPStore("127.0.0.1", 0, 2, True, timedelta(seconds=20), wait_for_workers=False)
    alone = Watch(0, 2, 1)
    with pytest.raises(TimeoutError, match="process 1 of 2 has not come within 0.3 s"):
        alone.meet(host, 0.3)
    alone.stop()
