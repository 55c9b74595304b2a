"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "torchcell"
FILES = sorted(PACKAGE.rglob("*.py"))
MAY_IMPORT = {
    "data": set(),
    "graph": {"data"},
    "splits": {"data"},
    "metrics": {"data"},
    "nn": {"data", "graph"},
    "baselines": {"data", "graph", "nn"},
    "datamodules": {"data", "graph", "splits", "metrics", "baselines", "nn"},
    "models": {"data", "graph", "nn", "metrics", "datamodules", "report"},
    "callbacks": {"data", "metrics"},
    "report": {"data", "metrics"},
}
"""Which rooms a room may import; entry points and ``run`` may import all."""


def imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("torchcell.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = path.relative_to(PACKAGE).parts[0]
    if room in MAY_IMPORT:
        allowed = MAY_IMPORT[room] | {room}
        assert imported_rooms(path) <= allowed, f"{room} imports {sorted(imported_rooms(path) - allowed)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_one_idea_and_its_name_says_which(path):
    assert len(path.read_text().splitlines()) <= 600  # one idea may need room; nothing is split to satisfy a counter
    assert not {"version", "old", "new", "lazy2", "utils", "helpers"} & set(path.stem.split("_"))


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'torch', 'pandas', 'sklearn', 'scanpy', 'lightning', 'wandb', 'matplotlib', 'hydra'}"
    script = f"import sys, torchcell; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
