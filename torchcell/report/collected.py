"""What ``collect`` shows people of many runs: a table for each config, its mean over lines first, and one verdict."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from torchcell.metrics.registry import BESIDE, CALIBRATION, PRIMARY

KEYS = ("experiment", "config", "split_method", "cell_line", "part", "system", "metric")
"""What rows must share to be averaged: the means run over seeds and folds, and then over cell lines."""

DIFFERENCES = "difference"
"""Level of the rows that say what ``over_folds`` found: ``value`` is the model minus ``system``, its best baseline."""

LINES = "mean_over_lines"
"""Level of the rows that average the means of single lines, so that each line counts once whatever its folds."""

HEADLINE = frozenset(name for group in (PRIMARY, CALIBRATION, BESIDE) for names in group.values() for name in names)
"""Metrics that any task compares."""
LOG_WIDTH = 200
"""Characters a line in a log file, which has no width of its own."""
SYSTEM_WIDTH, CELL_WIDTH = 30, 20
"""Characters for the name of a system, and for a value with its interval below it."""


@dataclass(frozen=True)
class _Block:
    """One table for people: a system a row, a metric a column, what the means are over, and what the runs show.

    ``compared`` are the metrics on which the model was compared with its baselines: a narrow screen shows these.
    """

    title: str
    over: str
    metrics: list[str]
    compared: list[str]
    rows: list[list[str]]
    runs: pd.DataFrame
    verdict: str


def _blocks(table: pd.DataFrame) -> Iterator[_Block]:
    """A block for each experiment, config, split, line and part; before those of lines, the mean over them."""
    table = table.assign(cell_line=table["cell_line"].fillna(""))
    keys = [key for key in KEYS if key not in ("system", "metric")]
    single = table[table["level"] == "run"].groupby(keys, sort=False)
    differences = {tuple(names): group for names, group in table[table["level"] == DIFFERENCES].groupby(keys)}
    groups = list(table[table["level"].isin(["mean", LINES])].groupby([*keys, "level"], sort=False))
    # The hard split is the headline, and what is true of all lines stands before what is true of one.
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
        compared = [metric for metric in metrics if metric in (set(found["metric"]) or HEADLINE)] or metrics
        verdict = ""
        if level != LINES and not found.empty:
            verdict = f"All runs together: {found['verdict'].iloc[0]}"
        elif len(runs) and (runs["run"] == runs["run"].iloc[0]).all() and runs["verdict"].notna().all():
            verdict = f"The one run: {runs['verdict'].iloc[0]}"
        title = f"{title}: {int(group['n_runs'].max())} run(s)"
        yield _Block(title, over, metrics, compared, rows, runs, verdict)


def show(table: pd.DataFrame) -> None:
    """The blocks on the screen; where it is too narrow for all metrics, those that were compared."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)
    for block in _blocks(table):
        title = escape(f"{block.title}, mean ± sd over {block.over} [mean 95 % interval]")
        fits = console.width >= SYSTEM_WIDTH + CELL_WIDTH * len(block.metrics)
        shown = block.metrics if fits else block.compared
        said = [block.verdict] if block.verdict else []
        if len(shown) < len(block.metrics):
            said.append(f"{len(block.metrics) - len(shown)} more metrics are in the table that -o writes")
        screen = Table(title=title, title_justify="left", caption=escape("\n".join(said)), caption_justify="left")
        screen.add_column("system", no_wrap=True)
        for metric in shown:
            screen.add_column(metric, justify="right")
        for system, *cells in block.rows:
            by_metric = dict(zip(block.metrics, cells, strict=True))
            screen.add_row(escape(system), *(escape(by_metric[metric].replace(" [", "\n[")) for metric in shown))
        console.print(screen)


def markdown(table: pd.DataFrame) -> str:
    """The blocks as Markdown, each followed by what its runs say of themselves."""
    lines: list[str] = []
    for block in _blocks(table):
        lines += [f"### {block.title}", "", f"Mean ± sd over {block.over} [mean of the 95 % intervals].", ""]
        lines += ["| system | " + " | ".join(block.metrics) + " |", "|---" * (len(block.metrics) + 1) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in block.rows]
        lines += ["", f"{block.verdict}."] if block.verdict else []
        lines.append("")
        for run, of_run in block.runs.groupby("run", sort=False):
            one = of_run.iloc[0]
            lines.append(
                f"- seed {one['seed']}, fold {one['fold']}: {one['epochs']} epochs in {one['seconds']:,.0f} s; "
                f"{one['verdict']} (`{Path(str(run)).name}`, split `{one['split_hash'][:8]}`)"
            )
        lines.append("")
    return "\n".join(lines)


def _cell(row: pd.Series) -> str:
    if row["value"] != row["value"]:
        return "undefined"
    spread = "" if row["sd"] != row["sd"] else f" ± {row['sd']:.3f}"
    interval = "" if row["low"] != row["low"] else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['value']:.3f}{spread}{interval}"
