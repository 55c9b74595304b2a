"""The table on the screen, and the cells it shares with the page."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from torchcell.evaluation.evaluate import evaluate
from torchcell.evaluation.results import Results
from torchcell.report.layout import best_baseline, blocks, digits, number, span
from torchcell.report.table import print_table

Make = Callable[..., Results]


def _printed(results: Results, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(evaluate(results, n_boot=60), results, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_shows_systems_intervals_the_ceiling_and_ends_with_the_verdict(make_results: Make) -> None:
    printed = _printed(make_results())
    assert "pearson ↑" in printed
    assert "mae ↓" in printed
    assert "without any value here: silent" in printed
    assert "pearson ↑ primary" in printed
    assert "twin (ceiling)" in printed
    assert "no skill" in printed
    assert "Net: better than ridge by ." in printed.splitlines()[-1]


def test_comparators_stand_below_the_model_and_have_a_line_each_after_the_verdict(make_results: Make) -> None:
    printed = _printed(replace(make_results(), comparators=("ridge",))).splitlines()
    rows = [line.split()[1] for line in printed if line.startswith("│") and line.split()[1].isalpha()]
    assert rows == ["Net", "ridge", "mean", "twin", "no"]
    assert any("ridge (comparator)" in line for line in printed)
    assert printed[-2].startswith("Net: better than mean by .")
    assert printed[-1].startswith("Net against ridge: better than ridge by .")


def test_prevalence_is_printed_beside_a_binary_task(make_results: Make) -> None:
    results = make_results("binary")
    assert f"prevalence {results.measured.mean():.3f}" in _printed(results)


def test_a_narrow_screen_shows_the_headline_metrics(make_results: Make) -> None:
    assert "rmse" in _printed(make_results(), 200)
    narrow = _printed(make_results(), 100)
    assert "rmse" not in narrow
    assert "pearson" in narrow


def test_best_is_among_model_and_baselines_that_cover_every_sample(make_results: Make) -> None:
    results = make_results()
    few = np.where(np.arange(120)[:, None] < 80, results.measured, np.nan)
    results = replace(results, systems={**results.systems, "few": few})
    (block,) = blocks(evaluate(results, n_boot=20))
    best = {row.system: [cell.best for cell in row.cells] for row in block.rows}
    assert all(best["Net"])
    assert not any(any(best[name]) for name in ("few", "twin", "ridge"))
    cell = next(row for row in block.rows if row.system == "few").cells[0]
    assert (cell.text, cell.note) == ("1.000", "40 undefined")


def test_the_baseline_drawn_beside_the_model_is_the_best(make_results: Make) -> None:
    results = make_results()
    assert best_baseline(evaluate(results, n_boot=20), results) == "ridge"
    alone = replace(results, systems={"Net": results.systems["Net"]}, ceiling=None)
    assert best_baseline(evaluate(alone, n_boot=20), alone) is None


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (0.4831, None, "0.483"),
        (0.00417, None, "0.00417"),
        (1234.5, None, "1,234"),
        (-0.0004, 3, "0.000"),
        (0, None, "0.000"),
    ],
)
def test_numbers_have_three_digits_and_no_negative_zero(value: float, places: int | None, text: str) -> None:
    assert number(value, places) == text


def test_a_column_shares_its_places() -> None:
    assert digits([0.5, 0.4, 3e-7, np.nan]) == 3
    assert digits([0.04, 0.03, 0.9]) == 4
    assert digits([]) == 3
    assert span(0.1, 0.25, 2) == "[0.10, 0.25]"
    assert span(np.nan, np.nan) == ""


def test_tables_import_no_plots() -> None:
    code = "import sys, torchcell.report.page, torchcell.report.table; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
