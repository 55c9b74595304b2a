"""The page of many runs: each is a row that can be filtered and leads to its report; then the tables over runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from torchcell.report.layout import number
from torchcell.report.page import script, templates
from torchcell.report.table import run_blocks

HEADS = ("experiment", "model", "split", "fold", "seed", "outcome", "verdict", "epochs", "seconds")
CHOICES = ("experiment", "model", "split", "outcome")
"""Columns with a menu of their values."""


@dataclass(frozen=True)
class _Run:
    """A row: texts in the order of ``HEADS``, the address of the report, its tone."""

    cells: tuple[str, ...]
    report: str
    tone: str


def runs_page(table: pd.DataFrame, out: Path) -> str:
    """The page as HTML; every value is escaped.

    Args:
        table: See ``torchcell.collect.collect``.
        out: Where the page will be written; reports are linked from there.
    """
    runs = list(_runs(table, out))
    places = [(name, HEADS.index(name)) for name in CHOICES]
    menus = {name: (place, sorted({run.cells[place] for run in runs if run.cells[place]})) for name, place in places}
    blocks = list(run_blocks(table))
    parts = {str(part) for part in table["part"].dropna()}
    name = f"{len(runs)} runs, scored on {' and '.join(sorted(parts))}"
    return (
        templates()
        .get_template("collected.html.j2")
        .render(name=name, heads=HEADS, runs=runs, menus=menus, blocks=blocks, tone="open", **script())
    )


def _runs(table: pd.DataFrame, out: Path) -> Iterator[_Run]:
    """The rows, the newest verdicts as they were written."""
    rows = table[table["level"] == "run"]
    for run, of_run in rows.groupby("run", sort=False):
        one = of_run.iloc[0]
        cells = [one["experiment"], one["system"], one["split_method"], one["fold"], one["seed"], one["class"]]
        cells += [one["verdict"], one["epochs"], one["seconds"]]
        report = Path(str(run)) / "report.html"
        address = quote(Path(os.path.relpath(report, out.parent)).as_posix()) if report.is_file() else ""
        yield _Run(
            tuple(map(_plain, cells)), address, {"better": "better", "worse": "worse"}.get(str(one["class"]), "")
        )


def _plain(value: object) -> str:
    """A cell as text, empty where there is no value."""
    if value is None or value is pd.NA or value != value:
        return ""
    return number(value) if isinstance(value, float) else str(value)
