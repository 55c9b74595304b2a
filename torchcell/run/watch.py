"""Ends a run of several processes when one of them is lost: no other would, and a collective step waits for ever."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import Store

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
