"""Processes of a run: how they are started, watched, and ended together."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
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

from torchcell.io.errors import InputError
from torchcell.training.distributed.placement import Placement, asked_for, placed
from torchcell.training.distributed.slurm import TOLD

LOOK_S = 1.0
"""Seconds between two signs of life, and between two looks at those of others."""
GRACE_S = 10.0
"""Seconds a process has to leave by itself, e.g. by the error of a broken connection, before it is ended."""
DONE = 1 << 40
"""Added to a count of signs when a process leaves in order."""


class Watch:
    """Signs of life over a store: the first process looks at all others, they look at the first.

    Looks are counted, not seconds: after a suspension of the whole job nobody is taken for dead. Two threads, since a
    connection to a node without power answers nothing for minutes.

    Args:
        rank: This process.
        world: Number of processes.
        lost_after_s: Without a sign of life for so long a process is lost.
        kin: Says what became of processes that this one started or was started by; none or a sentence.
        leave: Ends this process when it does not leave by itself; another one in tests.
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
        self._found: str | None = None
        self._found_at = threading.Event()
        self._stop = threading.Event()
        self._all_left = threading.Event()
        self._store: Store | None = None
        self._missed: dict[int, int] = {}
        self._unanswered = 0
        self._threads = [threading.Thread(target=self._judge, name="torchcell-watch", daemon=True)]
        self._threads[0].start()

    def meet(self, store: Store, wait_s: float) -> None:
        """Wait until all processes are here, then give and take signs of life.

        Args:
            store: That all processes share; this one's own connection to it.
            wait_s: How long to wait.

        Raises:
            TimeoutError: Not all have come.
        """
        store.add(f"beat/{self.rank}", 1)
        if self.rank == 0:
            store.set("said", "")
        deadline, late = time.monotonic() + wait_s, list(range(self.world))
        while late:
            late = [rank for rank in late if not store.check([f"beat/{rank}"])]
            if self._found_at.is_set():
                raise TimeoutError(self._found)
            if late and time.monotonic() > deadline:
                raise TimeoutError(
                    f"process {', '.join(map(str, late))} of {self.world} has not come within {wait_s:g} s; is it "
                    "still loading the program? (trainer.wait_s)"
                )
            time.sleep(0.05)
        store.wait(["said"], timedelta(seconds=wait_s))
        store.set_timeout(timedelta(seconds=self.lost_after_s))
        self._store = store
        self._threads.append(threading.Thread(target=self._beat, name="torchcell-beat", daemon=True))
        self._threads[-1].start()

    def say(self, text: str) -> str | None:
        """Tell the others why this process fails; what another one said before, if there is one."""
        if self._store is None:
            return self._found
        try:
            said = f"process {self.rank} of {self.world} failed: {text}"
            first = self._store.clone().compare_set("said", "", said)  # type: ignore[attr-defined]  # missing in the stub
        except Exception:
            return self.verdict()
        return None if first.decode().startswith(f"process {self.rank} of ") else first.decode()

    def verdict(self, wait_s: float | None = None) -> str | None:
        """What is known of a lost or failed process, once it is known.

        Args:
            wait_s: How long to wait for it; by default until a lost process would have been found.
        """
        self._found_at.wait(self.lost_after_s + 5 * LOOK_S if wait_s is None else wait_s)
        return self._found

    def leave_in_order(self, wait_s: float) -> None:
        """Say that this process is done; the first one waits for the others, who may still need its store."""
        if self._store is None:
            self._stop.set()
            return
        if self.rank == 0:
            until = time.monotonic() + wait_s
            while not (self._all_left.wait(0.2) or self._found_at.is_set() or time.monotonic() > until):
                pass
        self._stop.set()
        self._threads[-1].join(2 * LOOK_S)
        if self.rank:
            try:
                self._store.add(f"beat/{self.rank}", DONE)
            except Exception:  # the first one has gone already, and with it the store: nobody is left to tell
                return

    def stop(self) -> None:
        """Give and take no more signs."""
        self._stop.set()

    def _beat(self) -> None:
        """Talk to the store until it is time to leave; an error is silence, which ``_judge`` counts."""
        assert self._store is not None
        seen: dict[int, int] = {}
        others = range(1, self.world) if self.rank == 0 else (0,)
        while not self._stop.wait(LOOK_S):
            try:
                self._store.add(f"beat/{self.rank}", 1)
                said = self._store.get("said").decode()
                counts = {rank: self._store.add(f"beat/{rank}", 0) for rank in others}
            except Exception:
                continue
            self._unanswered = 0
            for rank, count in counts.items():
                alive = count >= DONE or count != seen.get(rank)
                self._missed[rank] = 0 if alive else self._missed.get(rank, 0) + 1
            seen = counts
            if said and not said.startswith(f"process {self.rank} of "):
                self._find(said)
            if all(count >= DONE for count in counts.values()):
                self._all_left.set()

    def _judge(self) -> None:
        """Look at what is known each second, without a word to anybody."""
        allowed = max(2, round(self.lost_after_s / LOOK_S))
        while not self._stop.wait(LOOK_S):
            silent = sorted(rank for rank, missed in self._missed.items() if missed >= allowed)
            kin = self._kin()
            if kin is not None:
                self._found_at.wait(2 * LOOK_S)  # it may have said why, which tells more
                self._find(kin)
            elif silent:
                self._find(self._silence(", ".join(map(str, silent))))
            elif self._store is not None:
                self._unanswered += 1
                if self._unanswered > allowed:
                    self._find(self._silence("0"))
            if self._found is not None:
                break
        else:
            return
        if self._stop.wait(GRACE_S):
            return
        print(f"error: {self._found}", file=sys.stderr, flush=True)
        self._leave(1)

    def _silence(self, ranks: str) -> str:
        return (
            f"process {ranks} of {self.world} has given no sign of life for {self.lost_after_s:g} s: it was killed "
            "(out of memory?) or its node is gone; the others end. Go on with ckpt_path=last"
        )

    def _find(self, text: str) -> None:
        """Keep the first finding, and let the first process tell it to all."""
        if self._found is not None:
            return
        self._found = text
        self._found_at.set()
        if self.rank == 0 and self._store is not None:
            threading.Thread(target=self._tell, args=(text,), daemon=True).start()

    def _tell(self, text: str) -> None:
        assert self._store is not None
        self._store.clone().compare_set("said", "", text)  # type: ignore[attr-defined]


Task = Callable[[DictConfig, "DistributedContext"], Any]
"""What every process runs."""
_RUNS = itertools.count()


@dataclass(frozen=True)
class DistributedContext:
    """One of ``world`` processes and its device."""

    device: torch.device
    rank: int = 0
    world: int = 1
    store: distributed.Store | None = None

    def gather(self, *values: float) -> Tensor:
        """The values of all processes, float64 [world, len(values)] on the CPU; each waits here for the others."""
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.world == 1:
            return mine[None].cpu()
        everyone = [torch.empty_like(mine) for _ in range(self.world)]
        distributed.all_gather(everyone, mine)
        return torch.stack(everyone).cpu()

    @contextmanager
    def first_before_others(self, what: str) -> Iterator[None]:
        """The first process runs the block, then the others do: it makes a folder, and they find it.

        Args:
            what: Name of the block, of its own in a run.
        """
        while self.rank and self.store is not None and not self.store.check([f"first/{what}"]):
            said = self.store.get("said").decode()
            if said:
                raise InputError(said)
            time.sleep(0.05)
        yield
        if self.rank == 0 and self.store is not None:
            self.store.set(f"first/{what}", "done")


def run_in_processes(task: Task, cfg: DictConfig) -> Any:
    """Run ``task`` on the device of ``cfg.trainer.accelerator`` in as many processes as ``cfg.trainer`` asks for.

    Where torchrun or srun has started the processes, each calls this. Else this one is the first, and the others of
    this machine are started here. When one is lost, the others end within a minute, see ``Watch``.

    Returns:
        What the task returned in this process.

    Raises:
        InputError: See ``asked_for``; raised by the task in any process; or another process was lost.
    """
    place = placed(os.environ)
    device, count = asked_for(cfg, place)
    if place is None and count == 1:
        return task(cfg, DistributedContext(device))
    children: list[BaseProcess] = []
    watch = Watch(
        place.rank if place else 0,
        place.world if place else count,
        cfg.trainer.lost_after_s,
        kin=lambda: _kin(children),
    )
    threads, asked_threads = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    try:
        process = _joined(task, cfg, place, device, count, watch, children)
        answer = task(cfg, process)
    except (SystemExit, KeyboardInterrupt):
        watch.leave_in_order(0)
        raise
    except Exception as error:
        said = (watch.verdict() if _is_of_others(error) else None) or watch.say(_words(error))
        if said is not None:
            raise InputError(said) from None
        raise
    else:
        watch.leave_in_order(cfg.trainer.wait_s)
        return answer
    finally:
        watch.stop()  # first, for it would take those that are ended here for lost
        _end(children)
        if distributed.is_initialized():
            distributed.destroy_process_group()
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
        torch.set_num_threads(threads)
        if asked_threads is None:
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
    """This process among the others, once all have come."""
    wait = timedelta(seconds=cfg.trainer.wait_s)
    if place is None:
        number = 0  # a store of its own, and children that are at their first run
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
    """The store of processes that a launcher has started; the first one keeps it until it leaves."""
    first = place.rank == 0 and not place.hosted
    return distributed.TCPStore(place.address, place.port, place.world, first, wait, wait_for_workers=False)


def _start(task: Task, cfg: DictConfig, place: Placement) -> BaseProcess:
    """One more process of this machine, told by the environment where it stands, as by torchrun."""
    told = {
        "RANK": place.rank,
        "WORLD_SIZE": place.world,
        "LOCAL_RANK": place.local_rank,
        "LOCAL_WORLD_SIZE": place.local_world,
        "MASTER_ADDR": place.address,
        "MASTER_PORT": place.port,
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ |= {name: str(value) for name, value in told.items()}
    try:
        process = multiprocessing.get_context("spawn").Process(target=_follow, args=(task, cfg), daemon=True)
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return process


def _follow(task: Task, cfg: DictConfig) -> None:
    """What a process that was started here does; the first one tells the user of bad input."""
    try:
        run_in_processes(task, cfg)
    except InputError as error:
        print(f"process {os.environ['RANK']} ends: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


def _kin(children: list[BaseProcess]) -> str | None:
    """What became of the processes that this one has started, or of the one that started it."""
    parent = multiprocessing.parent_process()
    if parent is not None and "RANK" in os.environ and not parent.is_alive():
        return f"process 0 of {os.environ['WORLD_SIZE']} is gone: it was killed (out of memory?); the others end"
    for rank, child in enumerate(children, 1):
        if child.exitcode and child.exitcode - 128 not in TOLD:  # told to end, all end in order
            how = f"was killed by signal {-child.exitcode}" if child.exitcode < 0 else f"left with {child.exitcode}"
            memory = " (out of memory?)" if child.exitcode == -9 else ""
            return f"process {rank} of {len(children) + 1} {how}{memory}; the others end. Go on with ckpt_path=last"
    return None


def _end(children: list[BaseProcess]) -> None:
    """Wait for processes that are about to leave, and end those that are not."""
    for child in children:
        child.join(10)
        if child.is_alive():
            child.terminate()
            child.join(5)
        if child.is_alive():
            child.kill()


def _is_of_others(error: Exception) -> bool:
    """Whether the error is what a broken connection looks like: the cause lies in another process."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "timed out", "broken pipe", "socket")
    lost = isinstance(error, distributed.DistError | ConnectionError | TimeoutError)
    return lost or (isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words))


def _words(error: BaseException) -> str:
    """The error in one line."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
