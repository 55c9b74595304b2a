"""Jobs on a SLURM of one node: an array, DDP under srun, a requeued job that ends as if untouched, a cancelled one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from torchcell.training import checkpoint

ROOT = Path(__file__).parents[2]
SMALL = (
    "data.record.n_genes=120 data.record.n_sets=500 data.record.n_queries=16 data.record.n_arrays=60 "
    "model.encoder.dim=16 model.readout.heads=1 model.readout.dropout=0.2 trainer.warmup_steps=30 trainer.early_stopping.patience=1000 "
    "evaluation.n_boot=20 baselines=none"
)
LONG = f"{SMALL} trainer.max_epochs=8 data.batch_size=8"
"""Some seconds of training, so that a signal finds it there."""
Submit = Callable[..., str]
PATIENCE_S = 800
"""On a machine that is busy with other things a start alone may take minutes."""
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def submit() -> Iterator[Submit]:
    """Submits to a SLURM of this test's own; gives the job's number."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    if os.getuid() != 0 or not all(shutil.which(name, path=path) for name in ("sbatch", "slurmd", "munged")):
        pytest.skip("no SLURM here: it takes root, and apt-get install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    local = ROOT / "scripts/slurm/local.sh"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_SLURM", str(folder / "cell"))
        patch.setenv("SLURM_CONF", str(folder / "cell/slurm.conf"))
        patch.setenv("PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", str(ROOT))
        started = subprocess.run([local, "start"], capture_output=True, text=True)
        if started.returncode:
            subprocess.run([local, "stop", "--now"], capture_output=True)
            pytest.skip(f"SLURM does not start here: {started.stderr[-500:]}")

        def sbatch(*arguments: Any, **environment: Any) -> str:
            command = ["sbatch", "--parsable", "--cpus-per-task=1", "--mem=1G", *map(str, arguments)]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env={**os.environ, **{key: str(value) for key, value in environment.items()}},
                cwd=ROOT,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        yield sbatch
        stopped = subprocess.run([local, "stop", "--now"], capture_output=True, text=True)
        assert "waiting" in stopped.stdout or "job" in stopped.stdout, stopped
        assert not (folder / "cell").exists(), "nothing is left behind"
    shutil.rmtree(folder)


def state(job: str) -> dict[str, str]:
    """What SLURM says of the job."""
    said = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"(\w+)=(\S*)", said.splitlines()[0]))


def until(true: Callable[[], Any], log: Path | None = None) -> None:
    """Wait."""
    give_up = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up, log.read_text()[-3000:] if log and log.is_file() else "no log"
        time.sleep(0.1)


def ended(job: str, log: Path) -> str:
    """The job's last state."""
    until(lambda: state(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), log)
    return state(job)["JobState"]


def the(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(f"*/*/{pattern}")
    return path


def has_trained(folder: Path) -> Callable[[], bool]:
    """Whether an epoch is over, so that a signal will find the run in a later one."""
    return lambda: any(folder.glob("*/*/history.csv"))


@pytest.fixture(scope="module")
def array(submit: Submit, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Two runs, submitted as a user does; the first is what the requeued one is compared with."""
    folder = tmp_path_factory.mktemp("array")
    (folder / "runs.txt").write_text(f"# two\n{LONG}\n\n{SMALL} trainer.max_epochs=2\n")
    script = ("scripts/slurm/array.sbatch", f"paths.runs={folder}")
    return submit("--array=0-1", f"--output={folder}/%a.log", *script, LIST=folder / "runs.txt"), folder


def test_a_signalled_job_is_requeued_and_ends_like_one_that_was_left_alone(array, submit, tmp_path):
    """USR1, which comes before the limit, goes to all processes of the step, wandb's own too."""
    (tmp_path / "runs.txt").write_text(LONG)
    script = ("scripts/slurm/array.sbatch", "logger=wandb", f"paths.runs={tmp_path}")
    job = submit("--array=0", f"--output={tmp_path}/log", *script, LIST=tmp_path / "runs.txt") + "_0"
    log = tmp_path / "log"
    until(has_trained(tmp_path), log)
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    assert ended(job, log) == "COMPLETED", log.read_text()
    assert state(job)["Restarts"] == "1"
    assert re.search(rf"SIGUSR1 \(epoch \d+.*\): saved .*last.ckpt; job {job} is requeued", log.read_text())
    whole, left_alone = f"{array[0]}_0", array[1]
    assert ended(whole, left_alone / "0.log") == "COMPLETED"
    requeued = the(tmp_path, "checkpoints/last.ckpt").parents[1]
    folders = (left_alone / requeued.relative_to(tmp_path), requeued)
    one, other = (torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in folders)
    assert one["global_step"] == other["global_step"]
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    pd.testing.assert_frame_equal(*(pd.read_csv(folder / "metrics.csv") for folder in folders))
    ids = {path.stem.rpartition("-")[2] for path in tmp_path.glob("*/*/wandb/offline-run-*/*.wandb")}
    assert len(ids) == 1, "both parts are one run of wandb"


def test_an_array_runs_each_line_of_its_list(array):
    job, folder = array
    for task in (0, 1):
        assert ended(f"{job}_{task}", folder / f"{task}.log") == "COMPLETED", (folder / f"{task}.log").read_text()
    epochs = [len(pd.read_csv(path)) for path in folder.glob("*/*/history.csv")]
    assert sorted(epochs) == [2, 8]


def test_two_tasks_of_srun_are_one_run(submit, tmp_path):
    """One folder, one report, each test sample once."""
    text = (ROOT / "scripts/slurm/one_node.sbatch").read_text().replace("trainer=ddp ", "trainer=ddp_cpu ")
    (tmp_path / "two.sbatch").write_text(re.sub("#SBATCH --gres.*\n", "", text))
    log = tmp_path / "log"
    job = submit("--ntasks-per-node=2", f"--output={log}", tmp_path / "two.sbatch", *f"{SMALL} trainer.max_epochs=2".split(),
                 "data.batch_size=64", f"paths.runs={tmp_path}/runs")  # fmt: skip
    assert ended(job, log) == "COMPLETED", log.read_text()
    assert len(re.findall("wrote .*report.html", log.read_text())) == 1
    predictions = pd.read_parquet(the(tmp_path / "runs", "predictions.parquet"))
    assert predictions["sample_id"].is_unique
    split = pd.read_parquet(the(tmp_path / "runs", "split.parquet"))
    assert set(predictions["sample_id"]) == set(split.loc[split["part"] == "test", "sample_id"])


def test_a_cancelled_job_stays_cancelled_and_leaves_a_checkpoint_that_loads(submit, tmp_path):
    log = tmp_path / "log"
    (tmp_path / "runs.txt").write_text(LONG.replace("max_epochs=8", "max_epochs=4000"))
    script = ("scripts/slurm/array.sbatch", f"paths.runs={tmp_path}")
    job = submit("--array=0", f"--output={log}", *script, LIST=tmp_path / "runs.txt") + "_0"
    until(has_trained(tmp_path), log)
    subprocess.run(["scancel", job], check=True)
    assert ended(job, log) == "CANCELLED"
    until(lambda: "not requeued: the job is completing (cancelled" in log.read_text(), log)
    saved = checkpoint.load(the(tmp_path, "checkpoints/last.ckpt"))
    assert saved.model().spec.outputs == ("gene_interaction",)
    assert state(job)["JobState"] == "CANCELLED"
