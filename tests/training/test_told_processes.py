"""Of two processes one is told to end: both save within the epoch and go on to the weights of an untouched run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_signals import assert_equal_runs, last
from torchcell.training.distributed.slurm import KEY

SCRIPT = Path(__file__).with_name("told_process.py")


def run(folder: Path, told: int, *overrides: str) -> tuple[int, str]:
    """Exit status and what was said; rank ``told`` gets the signal, -1 nobody."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    found = subprocess.run(
        [*launcher, str(SCRIPT), str(folder), str(told), *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return found.returncode, found.stderr


@pytest.mark.long
def test_when_one_of_two_processes_is_told_both_stop_at_one_step_and_go_on_to_equal_weights(tmp_path):
    status, said = run(tmp_path / "whole", -1)
    assert status == 0, said
    status, said = run(tmp_path / "told", 1)
    assert status != 0
    assert "epoch 1, 8 of 12 batches" in said, said  # the next step at which they ask each other, the 20th
    saved = last(tmp_path / "told")
    assert saved["global_step"] == 20
    assert len(saved[KEY]) == 2
    status, said = run(tmp_path / "told", -1, "ckpt_path=last")
    assert status == 0, said
    assert_equal_runs(tmp_path / "whole", tmp_path / "told")
