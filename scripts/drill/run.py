"""``make drill``: bad days on purpose. A table of fault, tries and what was lost; leaves with 1 if a promise is broken.

Options: ``--only kills`` runs one case, ``--kills 5`` does fewer kills, ``--parallel 1`` one at a time. Two cores need
some ten minutes, most of them for the kills.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import caches
import checkpoints
import kills
import places
import ranks
import signals
import training
from outcome import Outcome
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from small import checkpoint_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="runs that are killed (default 20)")
    parser.add_argument("--parallel", type=int, default=2, help="of them at a time (default 2)")
    console = Console() if sys.stdout.isatty() else Console(width=160)

    def say(text: str) -> None:
        console.print(f"  {text}", highlight=False, markup=False)

    cases: dict[str, Callable[[Path], Outcome]] = {
        "kills": lambda folder: kills.run(folder, say, asked.kills, asked.parallel),
        "ranks": ranks.run,
        "signals": signals.run,
        "unwritable": places.unwritable,
        "no_room": places.no_room,
        "lock_server": places.lock_server,
        "clock_back": places.clock_back,
        "leftovers": places.leftovers,
        "constant": places.constant,
        "full_disk": checkpoints.full_disk,
        "disk_fills": training.disk_fills,
        "damaged_cache": caches.damaged,
        "shared_cache": caches.shared,
        "not_a_number": training.not_a_number,
        "no_gradient": training.no_gradient,
        "no_memory": training.no_memory,
        "wandb_gone": training.wandb_gone,
        "other_version": lambda folder: checkpoints.other_version(checkpoint_of(folder), folder),
        "carries_code": lambda folder: checkpoints.carries_code(checkpoint_of(folder), folder),
    }
    parser.add_argument("--only", nargs="+", choices=sorted(cases), default=list(cases), help="these cases alone")
    asked = parser.parse_args()
    os.environ.setdefault("WANDB_SILENT", "true")
    table = Table(title="bad days", title_justify="left")
    for column in ("fault", "tries", "what was lost", "s", ""):
        table.add_column(column)
    failed = False
    with tempfile.TemporaryDirectory(prefix="drill-") as place:
        os.environ["TORCHCELL_DATA"] = f"{place}/data"
        for name in asked.only:
            console.print(f"{name} ...", highlight=False)
            outcome, seconds = _tried(name, cases[name], Path(place) / name)
            failed |= not outcome.kept
            for what in outcome.wrong:
                console.print(f"  broken: {what}", highlight=False, markup=False, style="red")
            verdict = "[green]kept" if outcome.kept else f"[red]broken ({len(outcome.wrong)})"
            cells = outcome.fault, str(outcome.tries), outcome.lost, f"{seconds:.0f}"
            table.add_row(*map(escape, cells), verdict)
        console.print(table)
    return int(failed)


def _tried(name: str, case: Callable[[Path], Outcome], folder: Path) -> tuple[Outcome, float]:
    """The case's outcome and its seconds; a case that fails otherwise is a broken promise too."""
    folder.mkdir(parents=True)
    start = time.monotonic()
    try:
        if name == "kills":
            outcome = case(folder)
        else:  # what the runs say is not what the drill says
            with (folder / "said.txt").open("w") as said, redirect_stdout(said), redirect_stderr(said):
                outcome = case(folder)
    except Exception as error:
        traceback.print_exception(error)
        outcome = Outcome(name, 1, "unknown", (f"{type(error).__name__}: {error}",))
    return outcome, time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())
