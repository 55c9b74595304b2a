"""``python -m torchcell.new NAME task=TASK``: a small linear model to start from, one Python file and one YAML."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from torchcell.io.command import in_one_line
from torchcell.io.errors import InputError, readable
from torchcell.training.model_files import TEMPLATES, new_model


@in_one_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 1 after a line on what was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m torchcell.new",
        description="Write a small linear model that trains, is scored and predicts as it stands: NAME.py and "
        "conf/model/NAME.yaml in the working directory; in a checkout, torchcell/TASK/models/NAME.py and its conf.",
    )
    parser.add_argument("name", metavar="NAME", help="of the model, e.g. linear_cells; its class is then LinearCells")
    parser.add_argument("task", metavar="task=TASK", help=", ".join(TEMPLATES))
    given = parser.parse_args(arguments)
    if "=" in given.task and not given.task.startswith("task="):
        raise InputError(f"{given.task!r} is not task=TASK; choose one of {', '.join(TEMPLATES)}")
    code, knobs, command = new_model(given.name, given.task.removeprefix("task="))
    print(readable(code), readable(knobs), readable(f"next: {command}"), sep="\n")
    if code.parent == Path.cwd():
        print(readable(f"evaluate, predict and embed are told that it is yours: trust=[{given.name}]"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
