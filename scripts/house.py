"""Sizes and imports of the package, printed for people: ``make house``. Only the rule of imports and cycles are tests.

    python scripts/house.py                 # sizes, and files that one run of each task executes (some 2 minutes)
    python scripts/house.py --static        # sizes alone

A file is executed if a function of it is called, after its import. A task's own files are those of its package.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "torchcell"
TASKS = {
    "screen": "simulated_dango",
    "drug_response": "simulated_chemoe",
    "cells": "simulated_perturbseq",
    "knowledge_graph": "simulated_hgt",
}
"""Task -> the experiment that is run for it."""
MOST_LINES, MOST_ARGUMENTS = 60, 8

TRACED = """
import json, sys, threading
from pathlib import Path
package, out = sys.argv[1:3]
called = set()
def note(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_name != "<module>" and code.co_filename.startswith(package):
        called.add(code.co_filename)
sys.setprofile(note)
threading.setprofile(note)
sys.argv = ["train", *sys.argv[3:]]
import runpy
try:
    runpy.run_module("torchcell.train", run_name="__main__", alter_sys=True)
except SystemExit as end:
    if end.code:
        raise
finally:
    sys.setprofile(None)
    ours = [module for name, module in sys.modules.items() if name.startswith("torchcell")]
    imported = [str(module.__file__) for module in ours if getattr(module, "__file__", "")]
    Path(out).write_text(json.dumps({"executed": sorted(called), "imported": sorted(set(imported))}))
"""


def functions() -> Iterator[tuple[str, int, int]]:
    """Name, lines and arguments of every function; ``self`` and ``cls`` do not count."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                own = sum(one.arg not in ("self", "cls") for one in given)
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}", lines, own


def print_sizes() -> None:
    """Files by package, the longest ones, functions above the limits."""
    files = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    code = {path: n for path, n in files.items() if path.name != "__init__.py"}
    print(f"{len(code)} Python files besides __init__.py, {sum(code.values()):,} lines")
    rooms = Counter(path.parts[0] if len(path.parts) > 1 else "verbs" for path in code)
    print("  " + ", ".join(f"{room} {n}" for room, n in rooms.most_common()))
    print("longest: " + ", ".join(f"{path} {n}" for path, n in sorted(code.items(), key=lambda item: -item[1])[:5]))
    large = [(name, lines, own) for name, lines, own in functions() if lines > MOST_LINES or own > MOST_ARGUMENTS]
    print(f"{len(large)} functions above {MOST_LINES} lines or {MOST_ARGUMENTS} arguments")
    for name, lines, own in sorted(large, key=lambda one: (-one[2], -one[1])):
        print(f"  {name}: {lines} lines, {own} arguments")
    print(f"{len(list((ROOT / 'conf').rglob('*.yaml')))} files in conf")


def print_run(task: str, experiment: str) -> None:
    """Files that one short run executes and imports."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "files.json"
        given = [f"+experiment={experiment}", "+debug=fast", "logger=csv", f"paths.runs={folder}/runs"]
        command = [sys.executable, "-c", TRACED, str(PACKAGE), str(out), *given]
        environment = {**os.environ, "TORCHCELL_DATA": f"{folder}/data", "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        if ended.returncode:
            print(f"{task}: {experiment} failed: {ended.stderr.strip().splitlines()[-1]}")
            return
        found = json.loads(out.read_text())
    executed = [Path(name).relative_to(PACKAGE) for name in found["executed"]]
    own = [path for path in executed if path.parts[0] == task]
    rooms = {path.parts[0] if len(path.parts) > 1 else "verbs" for path in executed}
    print(
        f"{task}: {experiment} executes {len(executed)} files in {len(rooms)} packages, {len(own)} of them its own; "
        f"imports {len(found['imported'])}"
    )


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--static", action="store_true", help="sizes alone, no runs")
    static = parser.parse_args().static
    print_sizes()
    for task, experiment in TASKS.items():
        if not static:
            print_run(task, experiment)


if __name__ == "__main__":
    main()
