"""The page of many runs: rows with links to reports, escaped names, and filters by column."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from torchcell.report.collected import HEADS, runs_page


def _table(folder: Path) -> pd.DataFrame:
    rows = []
    for seed, (outcome, line) in enumerate(
        [("better", "better than ridge by .1"), ("worse", "worse <b>than</b> ridge")]
    ):
        run = folder / "runs" / f"odd name#{seed}"
        run.mkdir(parents=True)
        (run / "report.html").touch()
        about = {"run": str(run), "experiment": "costanzo", "seed": seed, "config": "c", "split_method": "random"}
        about |= {"fold": 0, "split_hash": "a" * 64, "cell_line": None, "part": "test", "metric": "pearson"}
        about |= {"class": outcome, "verdict": line, "epochs": 3, "seconds": 1.5, "n_runs": 1, "low": 0.1, "high": 0.3}
        for level in ("run", "mean")[: 2 - seed]:
            rows += [
                about | {"level": level, "system": name, "value": 0.2, "sd": float("nan")} for name in ("Net", "ridge")
            ]
    return pd.DataFrame(rows)


def test_each_run_is_a_row_that_leads_to_its_report(tmp_path: Path) -> None:
    page = runs_page(_table(tmp_path), tmp_path / "all.html")
    links = re.findall(r'<a href="([^"]*)">([^<]*)</a>', page)
    assert links == [("runs/odd%20name%230/report.html", "Net"), ("runs/odd%20name%231/report.html", "Net")]
    assert '<td class="better">better</td>' in page
    assert '<td class="worse">worse</td>' in page
    assert "worse &lt;b&gt;than&lt;/b&gt; ridge" in page


def test_columns_with_several_values_have_a_menu(tmp_path: Path) -> None:
    page = runs_page(_table(tmp_path), tmp_path / "all.html")
    menus = re.findall(r'<select data-filter="(\d+)">(.*?)</select>', page)
    assert [HEADS[int(place)] for place, _ in menus] == ["outcome"]
    assert re.findall(r"<option>(\w+)</option>", menus[0][1]) == ["better", "worse"]
