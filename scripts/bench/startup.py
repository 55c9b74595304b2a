"""How long a user waits for ``import torchcell``, for ``--help`` and for the simulated cell."""

from __future__ import annotations

import subprocess
import sys

from target import Target, at_most, seconds

from torchcell.data.simulate import simulate_cell


def run() -> list[Target]:
    """Median of five, in fresh interpreters; the bare interpreter's own start is taken off the import."""
    bare = seconds(lambda: _python("-c", "pass"))
    imported = seconds(lambda: _python("-c", "import torchcell"))
    helped = seconds(lambda: _python("-m", "torchcell.train", "--help"))
    return [
        at_most("import torchcell", max(imported - bare, 0), 0.3, "s"),
        at_most("python -m torchcell.train --help", helped, 3, "s"),
        at_most("the simulated cell of 540 genes and 6,000 sets", seconds(simulate_cell), 5, "s"),
    ]


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
