"""Processes of a run: how they are started, watched, and ended together."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig
from torch import Tensor, distributed
from torch.distributed import Store

from torchcell.io.errors import InputError, readable
from torchcell.training.distributed.placement import Placement, placed, requested
from torchcell.training.distributed.slurm import TERMINATION_SIGNALS

LOOK_S = 1.0
"""Seconds between two signs of life, and between two checks of those of others."""
GRACE_S = 10.0
"""Seconds that a process has to end by itself, e.g. by an error of a broken connection, before it is ended."""
STOPPED_S = 2.0
"""Seconds that the other processes of a run that was stopped by a signal have to end."""
GO_ON = "Start the same command again with ckpt_path=auto: it goes on from what was saved, or starts anew"
DONE = 1 << 40
"""Added to the count of signs of a process that ends in order."""


class Watch:
    """Signs of life over a store: the first process checks all others, and they check the first.

    Checks are counted, not seconds, so that no process counts as dead after a suspension of the whole job. There are
    two threads, since a connection to a node without power blocks for minutes.

    Args:
        rank: Number of this process.
        world: Number of processes.
        lost_after_s: Seconds without a sign of life after which a process counts as dead.
        kin: Returns a sentence where a process that this one started, or was started by, has failed; else None.
        leave: Ends this process when it does not end by itself; another function in tests.
    """

    def __init__(
        self,
        rank: int,
        world: int,
        lost_after_s: float,
        kin: Callable[[], str | None] = lambda: None,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self.rank, self.world, self.lost_after_s = rank, world, lost_after_s
        self._kin, self._leave = kin, leave
        self._failure: str | None = None
        self._has_failed = threading.Event()
        self._stop = threading.Event()
        self._all_left = threading.Event()
        self._store: Store | None = None
        self._missed: dict[int, int] = {}
        self._unanswered = 0
        self._threads = [threading.Thread(target=self._judge, name="torchcell-watch", daemon=True)]
        self._threads[0].start()

    def meet(self, store: Store, wait_s: float) -> None:
        """Wait until all processes have come, then exchange signs of life.

        Args:
            store: Connection of this process to the store that all share.
            wait_s: Longest time to wait.

        Raises:
            TimeoutError: A process has not come.
        """
        store.add(f"beat/{self.rank}", 1)
        if self.rank == 0:
            store.set("failure", "")
        deadline, late = time.monotonic() + wait_s, list(range(self.world))
        while late:
            late = [rank for rank in late if not store.check([f"beat/{rank}"])]
            if self._has_failed.is_set():
                raise TimeoutError(self._failure)
            if late and time.monotonic() > deadline:
                raise TimeoutError(
                    f"process {', '.join(map(str, late))} of {self.world} has not come within {wait_s:g} s; is it "
                    "still loading the program? (trainer.wait_s)"
                )
            time.sleep(0.05)
        store.wait(["failure"], timedelta(seconds=wait_s))
        store.set_timeout(timedelta(seconds=self.lost_after_s))
        self._store = store
        self._threads.append(threading.Thread(target=self._beat, name="torchcell-beat", daemon=True))
        self._threads[-1].start()

    def report(self, text: str) -> str | None:
        """Send the others why this process fails; returns the message of a process that failed before, or None."""
        if self._store is None:
            return self._failure
        try:
            message = f"process {self.rank} of {self.world} failed: {text}"
            first = self._store.clone().compare_set("failure", "", message)  # type: ignore[attr-defined]  # missing in the stub
        except Exception:
            return self.verdict()
        return None if first.decode().startswith(f"process {self.rank} of ") else first.decode()

    def verdict(self, wait_s: float | None = None) -> str | None:
        """A sentence on a dead or failed process, once it is known; else None.

        Args:
            wait_s: Longest time to wait; by default until a dead process would have been found.
        """
        self._has_failed.wait(self.lost_after_s + 5 * LOOK_S if wait_s is None else wait_s)
        return self._failure

    def leave_in_order(self, wait_s: float) -> None:
        """Mark this process as done; the first one waits for the others, which may still need its store."""
        if self._store is None:
            self._stop.set()
            return
        if self.rank == 0:
            until = time.monotonic() + wait_s
            while not (self._all_left.wait(0.2) or self._has_failed.is_set() or time.monotonic() > until):
                pass
        self._stop.set()
        self._threads[-1].join(2 * LOOK_S)
        if self.rank:
            try:
                self._store.add(f"beat/{self.rank}", DONE)
            except Exception:  # the first process has ended already, and the store with it
                return

    def stop(self) -> None:
        """Stop the signs of life."""
        self._stop.set()

    def _beat(self) -> None:
        """Exchange signs until this process ends; ``_judge`` counts the failed attempts."""
        assert self._store is not None
        seen: dict[int, int] = {}
        others = range(1, self.world) if self.rank == 0 else (0,)
        while not self._stop.wait(LOOK_S):
            try:
                self._store.add(f"beat/{self.rank}", 1)
                failure = self._store.get("failure").decode()
                counts = {rank: self._store.add(f"beat/{rank}", 0) for rank in others}
            except Exception:
                continue
            self._unanswered = 0
            for rank, count in counts.items():
                alive = count >= DONE or count != seen.get(rank)
                self._missed[rank] = 0 if alive else self._missed.get(rank, 0) + 1
            seen = counts
            if failure and not failure.startswith(f"process {self.rank} of "):
                self._set_failure(failure)
            if all(count >= DONE for count in counts.values()):
                self._all_left.set()

    def _judge(self) -> None:
        """Check the counts of missing signs every second, without the store."""
        allowed = max(2, round(self.lost_after_s / LOOK_S))
        while not self._stop.wait(LOOK_S):
            silent = sorted(rank for rank, missed in self._missed.items() if missed >= allowed)
            kin = self._kin()
            if kin is not None:
                self._has_failed.wait(2 * LOOK_S)  # its own message says more
                self._set_failure(kin)
            elif silent:
                self._set_failure(self._silence(", ".join(map(str, silent))))
            elif self._store is not None:
                self._unanswered += 1
                if self._unanswered > allowed:
                    self._set_failure(self._silence("0"))
            if self._failure is not None:
                break
        else:
            return
        if self._stop.wait(GRACE_S):
            return
        print(readable(f"error: {self._failure}"), file=sys.stderr, flush=True)
        self._leave(1)

    def _silence(self, ranks: str) -> str:
        return (
            f"process {ranks} of {self.world} has given no sign of life for {self.lost_after_s:g} s: it was killed "
            f"(out of memory?) or its node is gone; the others end. {GO_ON}"
        )

    def _set_failure(self, text: str) -> None:
        """Keep the first failure; the first process sends it to all."""
        if self._failure is not None:
            return
        self._failure = text
        self._has_failed.set()
        if self.rank == 0 and self._store is not None:
            threading.Thread(target=self._send, args=(text,), daemon=True).start()

    def _send(self, text: str) -> None:
        assert self._store is not None
        self._store.clone().compare_set("failure", "", text)  # type: ignore[attr-defined]


Task = Callable[[DictConfig, "DistributedContext"], Any]
"""What every process runs."""
_RUNS = itertools.count()


@dataclass(frozen=True)
class DistributedContext:
    """One of ``world`` processes, with its device."""

    device: torch.device
    rank: int = 0
    world: int = 1
    store: distributed.Store | None = None

    def gather(self, *values: float) -> Tensor:
        """The values of all processes, float64 [world, len(values)] on the CPU; each process waits for the others."""
        own = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.world == 1:
            return own[None].cpu()
        gathered = [torch.empty_like(own) for _ in range(self.world)]
        distributed.all_gather(gathered, own)
        return torch.stack(gathered).cpu()

    @contextmanager
    def first_before_others(self, block: str) -> Iterator[None]:
        """The first process runs the block before the others, e.g. makes a folder that they use.

        Args:
            block: Name of the block, used once in a run.
        """
        while self.rank and self.store is not None and not self.store.check([f"first/{block}"]):
            failure = self.store.get("failure").decode()
            if failure:
                raise InputError(failure)
            time.sleep(0.05)
        yield
        if self.rank == 0 and self.store is not None:
            self.store.set(f"first/{block}", "done")


def run_in_processes(task: Task, cfg: DictConfig) -> Any:
    """Run ``task`` on the device of ``cfg.trainer.accelerator`` in as many processes as ``cfg.trainer`` sets.

    Where torchrun or srun has started the processes, each of them calls this. Else this process is the first, and
    starts the others on this machine. When one dies, the others end within a minute, see ``Watch``.

    Returns:
        The result of the task in this process.

    Raises:
        InputError: See ``requested``; raised by the task in any process; or another process has died.
    """
    place = placed(os.environ)
    device, count = requested(cfg, place)
    if place is None and count == 1:
        return task(cfg, DistributedContext(device))
    children: list[BaseProcess] = []
    watch = Watch(
        place.rank if place else 0,
        place.world if place else count,
        cfg.trainer.lost_after_s,
        kin=lambda: _kin(children),
    )
    threads, threads_before = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    try:
        process = _joined(task, cfg, place, device, count, watch, children)
        result = task(cfg, process)
    except (SystemExit, KeyboardInterrupt):
        watch.leave_in_order(0)
        watch.stop()
        _end(children, STOPPED_S)  # they have stopped at the same step, or no longer matter
        raise
    except Exception as error:
        failure = (watch.verdict() if _is_of_others(error) else None) or watch.report(_words(error))
        if failure is not None:
            raise InputError(failure) from None
        raise
    else:
        watch.leave_in_order(cfg.trainer.wait_s)
        return result
    finally:
        watch.stop()  # first, since it would take processes that are ended here for dead
        _end(children)
        if distributed.is_initialized():
            distributed.destroy_process_group()
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
        torch.set_num_threads(threads)
        if threads_before is None:
            os.environ.pop("OMP_NUM_THREADS", None)


def _joined(
    task: Task,
    cfg: DictConfig,
    place: Placement | None,
    device: torch.device,
    count: int,
    watch: Watch,
    children: list[BaseProcess],
) -> DistributedContext:
    """Join the other processes, and wait until all have come."""
    wait = timedelta(seconds=cfg.trainer.wait_s)
    if place is None:
        number = 0  # a new store, and children at their first run
        host = distributed.TCPStore("127.0.0.1", 0, count, True, wait, wait_for_workers=False)
        place = Placement(0, count, 0, count, "127.0.0.1", host.port)
        children += [_start(task, cfg, replace(place, rank=rank, local_rank=rank)) for rank in range(1, count)]
    else:
        number = next(_RUNS)
        host = _meeting_point(place, wait)
    rank_zero_only.rank = place.rank  # type: ignore[attr-defined]
    # Several runs may follow one another in the same processes, as under --multirun, and meet at the same store.
    store: distributed.Store = distributed.PrefixStore(f"torchcell/{place.attempt}/{number}", host)
    watch.meet(store.clone(), cfg.trainer.wait_s)  # type: ignore[attr-defined]  # missing in the stub
    if "OMP_NUM_THREADS" not in os.environ:  # the trainer would give each process all cores
        share = max(1, torch.get_num_threads() // place.local_world)
        os.environ["OMP_NUM_THREADS"] = str(share)
        torch.set_num_threads(share)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=distributed.PrefixStore("group", store),
        rank=place.rank,
        world_size=place.world,
        timeout=wait,
    )
    return DistributedContext(device, place.rank, place.world, store)


@functools.cache
def _meeting_point(place: Placement, wait: timedelta) -> distributed.TCPStore:
    """The store of processes that a launcher has started; the first one keeps it until it ends."""
    first = place.rank == 0 and not place.hosted
    return distributed.TCPStore(place.address, place.port, place.world, first, wait, wait_for_workers=False)


def _start(task: Task, cfg: DictConfig, place: Placement) -> BaseProcess:
    """Start one more process on this machine, with its placement in the environment, as torchrun does."""
    variables = {
        "RANK": place.rank,
        "WORLD_SIZE": place.world,
        "LOCAL_RANK": place.local_rank,
        "LOCAL_WORLD_SIZE": place.local_world,
        "MASTER_ADDR": place.address,
        "MASTER_PORT": place.port,
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= {name: str(value) for name, value in variables.items()}
    # Ctrl-C reaches all processes of a terminal. The first one tells the others; by themselves they would print a
    # traceback each.
    ours = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if ours else None
    try:
        process = multiprocessing.get_context("spawn").Process(target=_follow, args=(task, cfg), daemon=True)
        process.start()
    finally:
        if ours:
            signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return process


def _follow(task: Task, cfg: DictConfig) -> None:
    """Task of a process that was started here; the first process prints bad input for the user."""
    try:
        run_in_processes(task, cfg)
    except InputError as error:
        print(readable(f"process {os.environ['RANK']} ends: {error}"), file=sys.stderr, flush=True)
        sys.exit(1)


def _kin(children: list[BaseProcess]) -> str | None:
    """A sentence where a process that this one has started, or the one that started it, has failed; else None."""
    parent = multiprocessing.parent_process()
    if parent is not None and "RANK" in os.environ and not parent.is_alive():
        return (
            f"process 0 of {os.environ['WORLD_SIZE']} is gone: it was killed (out of memory?); the others end. {GO_ON}"
        )
    for rank, child in enumerate(children, 1):
        if child.exitcode and child.exitcode - 128 not in TERMINATION_SIGNALS:  # after these all processes end in order
            end = f"was killed by signal {-child.exitcode}" if child.exitcode < 0 else f"left with {child.exitcode}"
            memory = " (out of memory?)" if child.exitcode == -9 else ""
            return f"process {rank} of {len(children) + 1} {end}{memory}; the others end. {GO_ON}"
    return None


def _end(children: list[BaseProcess], wait_s: float = 10.0) -> None:
    """Wait for processes that are about to end, and kill those that do not end."""
    for child in children:
        child.join(wait_s)
        if child.is_alive():
            child.terminate()
            child.join(5)
        if child.is_alive():
            child.kill()


def _is_of_others(error: Exception) -> bool:
    """Whether the error looks like a broken connection, so that the cause is in another process."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "timed out", "broken pipe", "socket")
    is_connection_error = isinstance(error, distributed.DistError | ConnectionError | TimeoutError)
    return is_connection_error or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def _words(error: BaseException) -> str:
    """The error in one line."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
