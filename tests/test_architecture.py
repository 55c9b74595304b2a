"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "torchcell"
FILES = sorted(PACKAGE.rglob("*.py"))
BELOW = {
    "io": set(),
    "graph": {"io"},
    "nn": {"graph", "io"},
    "evaluation": {"io"},
    "report": {"evaluation", "io"},
    "core": {"evaluation", "report", "nn", "graph", "io"},
    "training": {"core", "evaluation", "report", "nn", "graph", "io"},
}
"""Which packages a package may import."""
TASKS = ("screen", "drug_response", "cells", "knowledge_graph")
"""A task imports core and what is below it: no other task, and nothing of a run."""
MAY_IMPORT = {**BELOW, **dict.fromkeys(TASKS, BELOW["training"])}


def imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.count(".") > 1 and name.startswith("torchcell.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = path.relative_to(PACKAGE).parts[0]
    if room in MAY_IMPORT:
        allowed = MAY_IMPORT[room] | {room}
        assert imported_rooms(path) <= allowed, f"{room} imports {sorted(imported_rooms(path) - allowed)}"


def test_no_module_waits_for_itself():
    """A cycle of imports at the heads of modules makes an import work or fail by what was imported before."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    needs = {name: imports_at_the_head(path) & set(names) for name, path in names.items()}
    TopologicalSorter(needs).prepare()  # raises CycleError, which names the cycle


def imports_at_the_head(path: Path) -> set[str]:
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_has_a_name_that_says_what_is_in_it(path):
    verb = path == PACKAGE / "new.py"  # which makes what is new
    assert verb or not {"version", "old", "new", "lazy2", "utils", "helpers"} & set(path.stem.split("_"))


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'torch', 'pandas', 'sklearn', 'scanpy', 'lightning', 'wandb', 'matplotlib', 'hydra'}"
    script = f"import sys, torchcell; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_each_test_file_has_a_name_of_its_own():
    """Folders of tests are no packages: of two files of one name pytest collects the first, and fails on the other."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
