"""Pages in a real browser: no complaint of a script, no sideways scroll, names under the pointer, from file://."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from torchcell.evaluation.evaluate import evaluate
from torchcell.evaluation.results import Results
from torchcell.report.page import write_report

LOOK = Path(__file__).parents[2] / "scripts" / "look.py"
NO_BROWSER = ("cannot open shared object file", "Could not load the Qt platform plugin")
"""What is said where a library of the system is not there; any other failure is ours."""
NAMED = """(() => {
  const point = document.querySelector("#predicted_against_measured [data-name]");
  point.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  const tip = document.getElementById("tip");
  return tip.hidden ? "" : tip.textContent;
})()"""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("PySide6") is None, reason="no browser here: pip install -e '.[browser]'"
    ),
]


def _look(page: Path, *options: str) -> dict:
    done = subprocess.run([sys.executable, LOOK, page, *options], capture_output=True, text=True, timeout=180)
    if done.returncode and any(text in done.stderr for text in NO_BROWSER):
        pytest.skip(f"the browser does not start here: {done.stderr.strip().splitlines()[-1:]}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def pages(
    tmp_path_factory: pytest.TempPathFactory, make_results: Callable[..., Results], history: pd.DataFrame
) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    results = make_results()
    evaluation = evaluate(results, n_boot=60)
    info = {"name": "a_long_name_without_a_space_" * 4, "notes": ["x" * 200], "split_hash": "a3f9" * 16}
    checks = {"spread": evaluation.spread}
    write_report(folder, evaluation=evaluation, results=results, history=history, info=info, checks=checks)
    return folder / "report.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_report_fits_the_window_and_its_script_works(pages: Path, width: int, dark: bool) -> None:
    seen = _look(pages, "--width", str(width), "--script", NAMED, *(["--dark"] if dark else []))
    assert seen["loaded"]
    assert seen["errors"] == []
    assert seen["overflow"] <= 0
    assert "measured" in seen["answer"]


def test_a_script_in_a_page_that_is_not_ours_does_not_run(pages: Path, tmp_path: Path) -> None:
    page = tmp_path / "changed.html"
    page.write_text(pages.read_text().replace("</main>", "<script>document.title='ran'</script></main>"))
    seen = _look(page, "--script", "document.title")
    assert seen["answer"] != "ran"
    assert any("Content Security Policy" in one for one in seen["errors"])
