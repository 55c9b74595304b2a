"""The nine-line layout of experiment 005 is one layout, whether SLURM starts its runs or the local launcher does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "experiments" / "005-chemoe"


def started(folder: Path, task: int) -> list[str]:
    """What task ``task`` of the array would start, with an ``echo`` in place of Python."""
    text = (FOLDER / "array.sbatch").read_text().replace(".venv/bin/python", "echo")
    (folder / "array.sh").write_text(text)
    environment = {"SLURM_ARRAY_TASK_ID": str(task), "PATH": "/usr/bin:/bin"}
    said = subprocess.run(
        ["bash", str(folder / "array.sh")], env=environment, capture_output=True, text=True, check=True
    )
    return said.stdout.split()[2:]


def test_the_array_starts_the_runs_of_the_local_launcher(tmp_path):
    script = (FOLDER / "run.sh").read_text()
    (line,) = re.findall(r'echo "lines (.*\$line.*)"', script)
    (names,) = re.findall(r"for line in (.*); do", script)
    layout = [
        {*line.replace("$line", name).replace("$fold", str(fold)).split()}
        for name in names.split()
        for fold in range(5)
    ]
    for task in (0, 7, 44):
        assert {*started(tmp_path, task)} == layout[task] | {"paths.runs=runs/005/lines"}


def test_the_log_of_a_task_needs_no_folder():
    """SLURM fails a job whose log it can't open, and nothing makes a folder logs."""
    (output,) = re.findall(r"#SBATCH --output=(.*)", (FOLDER / "array.sbatch").read_text())
    assert output == "%x-%A_%a.log"
