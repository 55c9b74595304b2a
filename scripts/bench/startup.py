"""How long a user waits for ``import torchcell``, for ``--help``, for the simulated cell and for a run's first step."""

from __future__ import annotations

import subprocess
import sys
import tempfile

from target import Target, at_most, seconds

from torchcell.screen.simulate import simulate_cell

FIRST_STEP = """
import os, runpy
from torchcell.screen.models.dango import Dango
Dango.on_train_batch_end = lambda *_: os._exit(0)
runpy.run_module("torchcell.train", run_name="__main__")
os._exit(1)  # no step was taken
"""
"""A run that ends with its first step."""


def run() -> list[Target]:
    """Medians, in fresh interpreters; the bare interpreter's own start is taken off the import."""
    bare = seconds(lambda: _python("-c", "pass"))
    imported = seconds(lambda: _python("-c", "import torchcell"))
    helped = seconds(lambda: _python("-m", "torchcell.train", "--help"))
    with tempfile.TemporaryDirectory() as runs:
        start = ("-c", FIRST_STEP, "+experiment=simulated_dango", f"paths.runs={runs}", "overwrite=true")
        stepped = seconds(lambda: _python(*start), 3)
    return [
        at_most("import torchcell", max(imported - bare, 0), 0.3, "s"),
        at_most("python -m torchcell.train --help", helped, 3, "s"),
        at_most("the simulated cell of 540 genes and 6,000 sets", seconds(simulate_cell), 5, "s"),
        at_most("start of a run on the simulated cell to its first step", stepped, 15, "s"),
    ]


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
