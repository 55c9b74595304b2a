"""The end of a command: its exit status, and one line where it was interrupted or its input was bad."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from torchcell.io.errors import InputError, readable
from torchcell.io.paths import unwritable

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in a shell."""


class Main(Protocol):
    """A verb's entry: arguments of the command line, or those given, to its exit status."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Run it."""


def say_interrupted() -> int:
    """Print the line of a command that was ended by Ctrl-C, and return its exit status."""
    print("error: interrupted by Ctrl-C; no file was left half-written", file=sys.stderr)
    return INTERRUPTED


def in_one_line(main: Callable[[Sequence[str] | None], int]) -> Main:
    """Decorate the ``main`` of a verb with plain arguments.

    Bad input, a full disk, a folder that can't be written and Ctrl-C end it with one line and a status.
    """

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except KeyboardInterrupt:
            return say_interrupted()
        except (InputError, OSError) as error:
            said = str(error) if isinstance(error, InputError) else unwritable(error)
            if not said:
                raise
            print(readable(f"error: {said}"), file=sys.stderr)
            return 1

    return run
