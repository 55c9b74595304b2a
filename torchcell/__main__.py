"""``torchcell VERB ...``: every verb of ``python -m torchcell.VERB`` by one command."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
VERBS = ("train", "evaluate", "predict", "embed", "collect", "reproduce", "profile", "data", "new")
"""In the order of the help; ``torchcell.select_genes`` is ``data select-genes``."""


def about(verb: str) -> str:
    """What a verb does: the first line of its module, which is not imported."""
    found = ast.get_docstring(ast.parse((HERE / f"{verb}.py").read_text(encoding="utf-8"))) or ""
    return re.sub(r"^``.*?``: ", "", found.split("\n")[0]).replace("``", "")


def usage() -> str:
    """The help: a line a verb."""
    lines = [f"  {verb:<10} {about(verb)}" for verb in VERBS]
    return "\n".join(["usage: torchcell VERB ...    (or python -m torchcell.VERB; each has --help)", "", *lines])


def main() -> int:
    """Become ``python -m torchcell.VERB`` with the further arguments."""
    from torchcell import __version__
    from torchcell.io.errors import near, readable

    verb, *rest = sys.argv[1:] or ["--help"]
    if verb in ("-h", "--help"):
        print(readable(usage()))
        return 0
    if verb == "--version":
        print(readable(f"torchcell {__version__}"))
        return 0
    if verb not in VERBS:
        print(readable(f"error: no verb {verb!r}; the nearest are {near(verb, VERBS) or list(VERBS)}"), file=sys.stderr)
        return 2
    sys.stdout.flush()
    return os.execv(sys.executable, [sys.executable, "-m", f"torchcell.{verb}", *rest])


if __name__ == "__main__":
    sys.exit(main())
