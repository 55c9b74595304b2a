"""The nine-line layout of experiment 005 is one list, whether SLURM starts its runs or the local launcher does."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = "experiments/005-chemoe/lines.txt"
LINES = ("A375", "A549", "BT20", "HELA", "HT29", "MCF7", "MDAMB231", "PC3", "VCAP")


def started(task: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What task ``task`` of the array would start, with an ``echo`` in place of srun."""
    text = (ROOT / "scripts/slurm/array.sbatch").read_text().replace("\nsrun ", "\necho ")
    environment = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_CPUS_PER_TASK": "2", "PATH": "/usr/bin:/bin", "LIST": LIST}
    command = ["bash", "-c", text, "array.sbatch", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)


def test_task_i_of_an_array_runs_line_i_of_its_list():
    told = [started(task, "+experiment=simulated_chemoe").stdout.split() for task in (0, 7, 44)]
    for words, (line, fold) in zip(told, (("A375", 0), ("A549", 2), ("VCAP", 4)), strict=True):
        assert words[1:3] == ["-m", "torchcell.train"]
        assert {f"data.cell_line={line}", f"split.fold={fold}", "ckpt_path=auto", "+experiment=simulated_chemoe"} <= {
            *words
        }
    beyond = started(45)
    assert beyond.returncode == 1
    assert "has no line 45" in beyond.stderr


def test_the_list_holds_every_line_and_fold_once_and_the_local_launcher_reads_it():
    found = re.findall(r"data.cell_line=(\w+) split=condition split.fold=(\d)", (ROOT / LIST).read_text())
    assert found == [(line, str(fold)) for line, fold in itertools.product(LINES, range(5))]
    assert (
        f"grep -v '^#' {LIST} | sed 's/^/lines +experiment=simulated_chemoe /' | train"
        in (ROOT / "experiments/005-chemoe/run.sh").read_text()
    )


def test_job_scripts_need_no_folder_for_their_logs_and_save_before_the_limit():
    """SLURM fails a job whose log it can't open, and nothing makes a folder logs."""
    scripts = sorted((ROOT / "scripts/slurm").glob("*.sbatch"))
    assert len(scripts) == 4
    for script in scripts:
        text = script.read_text()
        (output,) = re.findall(r"#SBATCH --output=(.*)", text)
        assert "/" not in output
        assert "#SBATCH --requeue" in text
        assert re.search(r"#SBATCH --signal=USR1@\d+\n", text)
        assert "#SBATCH --open-mode=append" in text, "a requeued job would overwrite its log"
