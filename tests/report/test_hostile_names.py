"""Names of genes, drugs and runs are the user's own: no markup, no script, no formula in them is taken for ours."""

from __future__ import annotations

import io
import re

from rich.console import Console

from torchcell.evaluation.evaluate import evaluate
from torchcell.report.page import write_report
from torchcell.report.table import MOST_BLOCKS, print_table

NAMES = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', r"$\foo$", "[/red] [bold]x", "{{ 7 * 7 }}")


def test_hostile_names_are_shown_as_they_are(tmp_path, make_results, history):
    results = make_results(n=40, outputs=NAMES)
    evaluation = evaluate(results, n_boot=10)
    every = " ".join(NAMES)
    info = {
        "name": every,
        "split": every,
        "dropped": {every: 1},
        "units": {every: every},
        "group": every,
        "notes": NAMES,
    }
    checks = {"spread": evaluation.spread}
    files = write_report(tmp_path, evaluation=evaluation, results=results, history=history, info=info, checks=checks)
    page = files[0].read_text(encoding="utf-8")
    assert page.count("<script") == 1, "ours"
    assert not re.search(r"<script>alert|<img src=x", page)
    assert "{{ 7 * 7 }}" in page
    assert all(file.resolve().is_relative_to(tmp_path.resolve()) for file in files)
    console = Console(width=200, record=True, file=io.StringIO())
    print_table(evaluation, results, console)
    said = console.export_text()
    assert [name for name in NAMES[: MOST_BLOCKS - 1] if name not in said] == []
