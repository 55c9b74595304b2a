"""The table of scores on the screen, with the verdict below it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from torchcell.metrics.evaluate import Evaluation
from torchcell.metrics.registry import BESIDE
from torchcell.metrics.results import Results
from torchcell.report.layout import Block, Cell, Row, blocks

MOST_BLOCKS = 5
"""Tables shown on the screen; all outputs are in ``metrics.csv``."""
LOG_WIDTH = 160
"""Characters a line in a log file, which has no width of its own; rich would assume 80."""
_STYLE = {"model": "bold cyan", "rival": "cyan", "ceiling": "italic green", "no skill": "dim"}


COLORS = {"green": "bold green", "red": "bold red", "grey": "bold"}
"""Style of the verdict's line: green is better and calibrated, red is worse, all else has no color."""


def print_table(
    evaluation: Evaluation, results: Results, console: Console | None = None, beside: Sequence[str] = ()
) -> None:
    """Print the scores of every system and the verdict.

    Args:
        evaluation: The scores.
        results: What was scored.
        console: Where to; the terminal by default.
        beside: Lines below the verdict, e.g. the spread over seeds.
    """
    if console is None:
        console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    console.print(render(evaluation, results, console.width))
    for line in beside:
        console.print(Text(line))


def render(evaluation: Evaluation, results: Results, width: int = 160) -> Group:
    """The tables, a line for the outputs left out, the verdict, and a line a rival; a narrow screen gets the metrics
    that are compared.
    """
    every = blocks(evaluation)
    parts: list[Table | Text] = [_table(block, results.part, width) for block in every[:MOST_BLOCKS]]
    if len(every) > MOST_BLOCKS:
        parts.append(Text(f"and {len(every) - MOST_BLOCKS} more outputs in metrics.csv", style="dim"))
    verdict = evaluation.verdict
    rivals = [Text(f"{results.model} {one.text}", style="bold") for one in evaluation.rivals]
    return Group(*parts, Text(f"{results.model}: {verdict.text}", style=COLORS[verdict.color]), *rivals)


def _table(block: Block, part: str, width: int) -> Table:
    said = f"{part}: {block.n_samples:,} samples in {block.n_units:,} clusters"
    title = f"{block.output}, {said}" if block.output else said
    if block.prevalence is not None:
        title += f", prevalence {block.prevalence:.3f}"
    caption = "\n".join(["95 % bootstrap intervals over clusters; best in bold", *block.footnotes])
    table = Table(title=escape(title), caption=escape(caption), title_justify="left")
    table.add_column("system", no_wrap=True)
    narrow = width < 40 + 18 * len(block.metrics)
    shown = [k for k, one in enumerate(block.metrics) if not narrow or one.name in BESIDE[block.task]]
    for k in shown:
        table.add_column(block.heads[k], justify="right")
    for row in block.rows:
        table.add_row(_name(row), *(_text(row.cells[k]) for k in shown), end_section=row.role == "model")
    return table


def _name(row: Row) -> Text:
    suffix = f" ({row.role})" if row.role in ("ceiling", "rival") else ""
    return Text(row.system + suffix, style=_STYLE.get(row.role, ""))


def _text(cell: Cell) -> Text:
    if cell.undefined:
        return Text(cell.text, style="yellow")
    text = Text(cell.text, style="bold" if cell.best else "")
    if cell.interval:
        text.append(f"\n{cell.interval}", style="dim not bold")
    if cell.note:
        text.append(f"\n{cell.note}", style="yellow not bold")
    return text
