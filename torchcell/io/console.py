"""The one console on which tables and lines are printed: what a file says stays text on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from torchcell.io.errors import readable


class Console(rich.console.Console):
    """Rich's console, but names and sentences with control characters are printed as ``readable`` shows them.

    A name in a file of others could clear the screen, fill the clipboard or write another verdict over ours.

    Example:
        >>> Console().print("gene \\x1b[2J", highlight=False)
        gene \\x1b[2J
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The pieces of what is printed; styles are put around them later."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else piece._replace(text=readable(piece.text))
