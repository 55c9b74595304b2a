"""The table of one run and that of several runs, for the terminal and as Markdown."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from torchcell.evaluation.evaluate import Evaluation
from torchcell.evaluation.registry import compared_metrics, metric_set
from torchcell.evaluation.results import Results
from torchcell.io.console import Console
from torchcell.io.errors import readable
from torchcell.report.layout import Block, Cell, Row, blocks

KEYS = ("experiment", "config", "split_method", "cell_line", "part", "system", "metric")
"""Columns that rows must share to be averaged, over seeds and folds, and then over cell lines."""

DIFFERENCES = "difference"
"""Level of rows from ``over_folds``: ``value`` is the model minus ``system``, its best baseline."""

LINES = "mean_over_lines"
"""Level of rows that average the means of single cell lines: each line counts once, whatever its folds."""

COLLECTED_WIDTH = 200
"""Characters in a line of a log file."""
SYSTEM_WIDTH, CELL_WIDTH = 30, 20
"""Characters for the name of a system, and for a value with its interval."""


@dataclass(frozen=True)
class RunBlock:
    """One printed table: a row for each system and a column for each metric, with the runs and their verdict.

    ``over`` says what the means are over. ``compared`` are the metrics on which the model was compared with its
    baselines: a narrow screen shows only these.
    """

    title: str
    over: str
    metrics: list[str]
    compared: list[str]
    rows: list[list[str]]
    runs: pd.DataFrame
    verdict: str


def run_blocks(table: pd.DataFrame) -> Iterator[RunBlock]:
    """A block for each experiment, config, split, cell line and part; the mean over cell lines comes first."""
    table = table.assign(cell_line=table["cell_line"].fillna(""))
    keys = [key for key in KEYS if key not in ("system", "metric")]
    single = table[table["level"] == "run"].groupby(keys, sort=False)
    differences = {tuple(names): group for names, group in table[table["level"] == DIFFERENCES].groupby(keys)}
    groups = list(table[table["level"].isin(["mean", LINES])].groupby([*keys, "level"], sort=False))
    # A random split comes last, and the mean over cell lines before single ones.
    place = {config: i for i, config in enumerate(dict.fromkeys(table["config"]))}
    groups.sort(key=lambda found: (found[0][0], found[0][2] == "random", place[found[0][1]], found[0][-1] != LINES))
    for (*key, level), group in groups:
        metrics = list(dict.fromkeys(group["metric"]))
        rows = []
        for system, of_system in group.groupby("system", sort=False):
            cells = of_system.set_index("metric")
            rows.append([str(system), *(_cell(cells.loc[metric]) for metric in metrics)])
        experiment, config, split, line, part = key
        over = f"{int(group['n_lines'].max())} lines" if level == LINES else "runs"
        of = f"mean over {over}" if level == LINES else line
        title = ", ".join(str(text) for text in (f"{experiment} {config}", split, of, part) if text)
        runs = table.iloc[:0] if level == LINES else single.get_group(tuple(key))
        found = differences.get(tuple(key), table.iloc[:0])
        compared = [metric for metric in metrics if metric in (set(found["metric"]) or compared_metrics())] or metrics
        verdict = ""
        if level != LINES and not found.empty:
            verdict = f"All runs together: {found['verdict'].iloc[0]}"
        elif len(runs) and (runs["run"] == runs["run"].iloc[0]).all() and runs["verdict"].notna().all():
            verdict = f"The one run: {runs['verdict'].iloc[0]}"
        title = f"{title}: {int(group['n_runs'].max())} run(s)"
        yield RunBlock(title, over, metrics, compared, rows, runs, verdict)


def show(table: pd.DataFrame) -> None:
    """Print the blocks; a narrow screen gets only the compared metrics."""
    from rich.markup import escape
    from rich.table import Table

    from torchcell.io.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=COLLECTED_WIDTH)
    for block in run_blocks(table):
        title = escape(f"{block.title}, mean ± sd over {block.over} [mean 95 % interval]")
        fits = console.width >= SYSTEM_WIDTH + CELL_WIDTH * len(block.metrics)
        shown = block.metrics if fits else block.compared
        notes = [block.verdict] if block.verdict else []
        if len(shown) < len(block.metrics):
            notes.append(f"{len(block.metrics) - len(shown)} more metrics are in the table that -o writes")
        screen = Table(title=title, title_justify="left", caption=escape("\n".join(notes)), caption_justify="left")
        screen.add_column("system", no_wrap=True)
        for metric in shown:
            screen.add_column(metric, justify="right")
        for system, *cells in block.rows:
            by_metric = dict(zip(block.metrics, cells, strict=True))
            screen.add_row(escape(system), *(escape(by_metric[metric].replace(" [", "\n[")) for metric in shown))
        console.print(screen)


def markdown(table: pd.DataFrame) -> str:
    """The blocks as Markdown, each followed by a line for each run."""
    lines: list[str] = []
    for block in run_blocks(table):
        lines += [f"### {_inline(block.title)}", "", f"Mean ± sd over {block.over} [mean of the 95 % intervals].", ""]
        lines += ["| system | " + " | ".join(map(_inline, block.metrics)) + " |"]
        lines += ["|---" * (len(block.metrics) + 1) + "|"]
        lines += ["| " + " | ".join(map(_inline, row)) + " |" for row in block.rows]
        lines += ["", f"{_inline(block.verdict)}."] if block.verdict else []
        lines.append("")
        for run, of_run in block.runs.groupby("run", sort=False):
            one = of_run.iloc[0]
            known = f"`{Path(str(run)).name}`, split `{one['split_hash'][:8]}`"
            lines.append(
                _inline(
                    f"- seed {one['seed']}, fold {one['fold']}: {one['epochs']} epochs in {one['seconds']:,.0f} s; "
                    f"{one['verdict']} ({known})"
                )
            )
        lines.append("")
    return "\n".join(lines)


def _inline(text: str) -> str:
    """A text within a line of Markdown: a name in a run of others could close the table, or hold an image to fetch."""
    line = " ".join(readable(text).split())
    return re.sub(r"<(?=[A-Za-z/!?])", r"\<", line.replace("|", r"\|").replace("](", r"]\("))


def _cell(row: pd.Series) -> str:
    if row["value"] != row["value"]:
        return "undefined"
    spread = "" if row["sd"] != row["sd"] else f" ± {row['sd']:.3f}"
    interval = "" if row["low"] != row["low"] else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['value']:.3f}{spread}{interval}"


MOST_BLOCKS = 5
"""Tables that are printed; all outputs are in ``metrics.csv``."""
LOG_WIDTH = 160
"""Characters in a line of a log file; rich would assume 80."""
_STYLE = {"model": "bold cyan", "comparator": "cyan", "ceiling": "italic green", "no skill": "dim"}


COLORS = {"green": "bold green", "red": "bold red", "grey": "bold"}
"""Style of the verdict by its color: green is better and calibrated, red is worse."""


def print_table(
    evaluation: Evaluation, results: Results, console: Console | None = None, beside: Sequence[str] = ()
) -> None:
    """Print the scores of every system and the verdict.

    Args:
        evaluation: The scores.
        results: The first of the scored results.
        console: Console to print to; by default the terminal.
        beside: Lines below the verdict, e.g. the spread over seeds.
    """
    if console is None:
        console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    console.print(render(evaluation, results, console.width))
    for line in beside:
        console.print(Text(line))


def render(evaluation: Evaluation, results: Results, width: int = 160) -> Group:
    """The tables, a line for outputs left out, the verdict, and a line for each comparator. A narrow screen gets only
    the compared metrics.
    """
    all_blocks = blocks(evaluation)
    parts: list[Table | Text] = [_table(block, results.part, width) for block in all_blocks[:MOST_BLOCKS]]
    if len(all_blocks) > MOST_BLOCKS:
        parts.append(Text(f"and {len(all_blocks) - MOST_BLOCKS} more outputs in metrics.csv", style="dim"))
    verdict = evaluation.verdict
    comparators = [Text(f"{results.model} {one.text}", style="bold") for one in evaluation.comparators]
    return Group(*parts, Text(f"{results.model}: {verdict.text}", style=COLORS[verdict.color]), *comparators)


def _table(block: Block, part: str, width: int) -> Table:
    counts = f"{part}: {block.n_samples:,} samples in {block.n_clusters:,} clusters"
    title = f"{block.output}, {counts}" if block.output else counts
    if block.prevalence is not None:
        title += f", prevalence {block.prevalence:.3f}"
    caption = "\n".join(["95 % bootstrap intervals over clusters; best in bold", *block.footnotes])
    table = Table(title=escape(title), caption=escape(caption), title_justify="left")
    table.add_column("system", no_wrap=True)
    narrow = width < 40 + 18 * len(block.metrics)
    shown = [k for k, one in enumerate(block.metrics) if not narrow or one.name in metric_set(block.task).beside]
    for k in shown:
        table.add_column(block.heads[k], justify="right")
    for row in block.rows:
        table.add_row(_name(row), *(_text(row.cells[k]) for k in shown), end_section=row.role == "model")
    return table


def _name(row: Row) -> Text:
    suffix = f" ({row.role})" if row.role in ("ceiling", "comparator") else ""
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
