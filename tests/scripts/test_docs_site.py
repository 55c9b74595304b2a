"""What ``make docs`` makes of other files, how it finds broken links, and that every tutorial runs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import build_docs as docs
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path for path in (ROOT / "docs").rglob("*.md") if "{code-cell}" in path.read_text())


def cells_of(page: Path) -> list[str]:
    """The code cells of a Markdown notebook."""
    found = re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", page.read_text(), flags=re.M | re.S)
    return [re.sub(r"^(:\w+:.*\n)+\n", "", cell) for cell in found]


def test_the_configuration_reference_holds_every_key_with_its_comment():
    text = docs.configuration(ROOT / "conf")
    assert "| `trainer.precision` | `32-true` |" in text
    assert "| `unknown_genes`" in text.partition("### predict")[2].partition("### ")[0]
    assert "| `evaluation.n_boot` | `1000` | bootstrap resamples of the split's clusters |" in text
    assert (
        "| `model.encoder.residual` | `0.3` | fraction of the first vector in each layer's output, 0.2 to 0.5; 0 collapses |"
        in text
    )
    for path in (ROOT / "conf").rglob("*.yaml"):
        name = path.relative_to(ROOT / "conf")
        assert (f"\n### {name.with_suffix('')}\n" in text) == (name.parts[0] != "hydra")


def test_a_described_file_has_dotted_keys_and_text_that_stays_text():
    text = "# head <b> one\n# two\na: 1 # first | second\nb:\n  c: [x] # _see_\n  d: null\nhydra:\n  e: 1\n"
    assert docs.described(text) == [
        "head \\<b> one two",
        "",
        "| key | default | what it is |",
        "|---|---|---|",
        "| `a` | `1` | first \\| second |",
        "| `b.c` | `[x]` | \\_see\\_ |",
        "| `b.d` | `null` |  |",
    ]


def test_a_studys_table_is_that_of_its_means(tmp_path):
    common = {"experiment": "e", "config": "c", "split_method": "random", "cell_line": "", "part": "test"}
    rows = [
        {
            **common,
            "level": "run",
            "system": "a",
            "metric": "pearson",
            "value": "9",
            "low": "",
            "high": "",
            "verdict": "no",
        },
        {
            **common,
            "level": "mean",
            "system": "a",
            "metric": "pearson",
            "value": "0.51234",
            "low": "0.4",
            "high": "0.6",
            "verdict": "",
        },
        {
            **common,
            "level": "mean",
            "system": "b",
            "metric": "pearson",
            "value": "",
            "low": "",
            "high": "",
            "verdict": "",
        },
        {
            **common,
            "level": "difference",
            "system": "b",
            "metric": "pearson",
            "value": "1",
            "low": "",
            "high": "",
            "verdict": "better",
        },
    ]
    assert list(docs.scores(rows)) == [
        "", "**e, c, random, test**", "", "| system | pearson |", "|---|---|",
        "| a | 0.512 \\[0.400, 0.600\\] |", "| b | undefined |", "", "- better",
    ]  # fmt: skip


def test_every_study_has_a_page_whose_tables_name_their_file_and_date():
    folders = [path.parent for path in (ROOT / "experiments").glob("*/README.md")]
    assert len(folders) > 5
    for folder in folders:
        text = docs.study(folder)
        for path in folder.rglob("*.csv"):
            assert f"\n## {path.relative_to(folder)}\n" in text


def test_links_that_lead_nowhere_and_what_is_loaded_from_elsewhere_are_found(tmp_path):
    (tmp_path / "sub").mkdir()
    good = '<a href="sub/b.html#there">x</a><a href="#here">x</a><a href="https://example.org">x</a><p id="here">'
    bad = '<a href="gone.html">x</a><a href="sub/b.html#nowhere">x</a><script src="https://cdn.example.org/x.js"></script>'
    (tmp_path / "a.html").write_text(good + bad)
    (tmp_path / "sub" / "b.html").write_text('<p id="there"><a href="../a.html">x</a><img src="gone.png">')
    assert docs.broken(tmp_path) == [
        "a.html: gone.html",
        "a.html: sub/b.html#nowhere",
        "a.html: loads https://cdn.example.org/x.js",
        "sub/b.html: gone.png",
    ]


def test_every_page_is_in_the_navigation():
    listed = {f"{name.partition('<')[2].rstrip('>') or name}.md" for names in docs.CONTENTS.values() for name in names}
    for index in (ROOT / "docs").rglob("*.md"):
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", index.read_text(), flags=re.M | re.S):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {str((index.parent / f"{name}.md").relative_to(ROOT)) for name in names}
    concepts = (ROOT / "docs" / "concepts" / "index.md").read_text()
    listed |= {f"docs/concepts/{name}" for name in re.findall(r"\]\(([\w-]+\.md)\)", concepts)}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert pages - listed == set()


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebooks_cells_are_python_and_it_says_which_kernel(page):
    assert page.read_text().startswith("---\njupytext:\n")
    for cell in cells_of(page):
        ast.parse(cell)


@pytest.mark.long
@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(page, tmp_path):
    (tmp_path / "notebook.py").write_text("\n\n".join(cells_of(page)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    answer = subprocess.run(
        [sys.executable, "notebook.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
