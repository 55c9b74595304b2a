"""A run that is told to end saves within the epoch, says how to go on, and ends with the weights of an untouched one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from torchcell.io.errors import InputError
from torchcell.train import train
from torchcell.training import build as assemble
from torchcell.training import score as scoring
from torchcell.training.distributed.slurm import KEY, TERMINATION_SIGNALS, Requeue, Signals, Stopped
from torchcell.training.entry import conf_dir

SMALL = (
    "data.record.n_genes=120",
    "data.record.n_sets=300",
    "data.record.n_queries=16",
    "data.record.n_arrays=40",
    "data.batch_size=16",
    "model.encoder.dim=8",
    "model.readout.heads=1",
    "model.readout.dropout=0.2",
    "trainer.max_epochs=3",
    "trainer.warmup_steps=20",
    "evaluation.n_boot=20",
    "trainer.accumulate_grad_batches=2",
    "baselines=none",
)


def config(folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", [*SMALL, "logger.every_n_steps=2", f"paths.runs={folder}", *overrides])


class Tell(lightning.Callback):
    """Sends this process a signal at the start of a batch, or at the end of validation."""

    def __init__(self, epoch: int, batch: int | None, number: int = signal.SIGTERM) -> None:
        self.epoch, self.batch, self.number = epoch, batch, number

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            os.kill(os.getpid(), self.number)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch and self.batch is None:
            os.kill(os.getpid(), self.number)


def told(patch: pytest.MonkeyPatch, cfg: DictConfig, tell: Tell) -> int:
    """Run until the signal; the exit status."""
    original = assemble.trainer

    def listening(*arguments: Any) -> lightning.Trainer:
        trainer = original(*arguments)
        trainer.callbacks.append(tell)
        return trainer

    before = [signal.getsignal(number) for number in TERMINATION_SIGNALS]
    with patch.context() as patched:
        patched.setattr(assemble, "trainer", listening)
        with pytest.raises(Stopped) as stopped:
            train(cfg)
    for number, handler in zip(TERMINATION_SIGNALS, before, strict=True):
        signal.signal(number, handler)
    return int(stopped.value.code)


def last(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*/*/checkpoints/last.ckpt")
    return torch.load(path, weights_only=True)


@pytest.fixture(autouse=True, scope="module")
def _unscored() -> Iterator[None]:
    """Only the training is looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "score", lambda *arguments, **keywords: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(config(folder))
    return folder


def assert_equal_runs(one: Path, other: Path, metric: str = "train/gene_interaction/Pearson") -> None:
    a, b = last(one), last(other)
    assert (a["epoch"], a["global_step"]) == (b["epoch"], b["global_step"])
    for name, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][name]), name
    for key, state in a["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, b["optimizer_states"][0]["state"][key][name])
    columns = ["epoch", "train/loss", "train/grad_norm", metric, "val/score"]
    tables = [pd.read_csv(next(folder.glob("*/*/history.csv")))[columns] for folder in (one, other)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    steps = [pd.read_csv(next(folder.glob("*/*/steps.csv"))) for folder in (one, other)]
    pd.testing.assert_frame_equal(*steps, check_exact=True)


@pytest.mark.parametrize(("epoch", "batch"), [(0, 0), (1, 4), (1, None)], ids=["first step", "mid-epoch", "validation"])
def test_a_run_told_to_end_goes_on_from_the_same_step_to_the_same_weights(
    whole, tmp_path, monkeypatch, capsys, epoch, batch
):
    cfg = config(tmp_path)
    assert told(monkeypatch, cfg, Tell(epoch, batch)) == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert "SIGTERM (epoch" in said
    assert "saved" in said
    assert "go on with ckpt_path=last" in said
    n_steps = 6  # of two batches each
    assert last(tmp_path)["global_step"] == (
        (epoch + 1) * n_steps if batch is None else epoch * n_steps + batch // 2 + 1
    )
    cfg.ckpt_path = "last"
    train(cfg)
    assert_equal_runs(whole, tmp_path)
    assert KEY not in last(tmp_path)
    (history,) = tmp_path.glob("*/*/history.csv")
    assert (pd.read_csv(history)["samples_per_s"] > 10).all(), "a half epoch starts its clock too"


def test_a_curriculum_told_to_end_within_a_middle_phase_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    """Cells are dealt anew each epoch, and genes and batches a step are set when one begins: a half epoch has both."""

    def cells(folder: Path) -> DictConfig:
        sizes = ("n_genes=20", "n_regulators=16", "n_doubles=0", "n_lines=1", "cells_per_condition=8")
        phases = "[{epoch: 0, genes: 0.25}, {epoch: 1, genes: 0.5}, {epoch: 2, genes: null}]"
        overrides = [
            *(f"data.record.{size}" for size in sizes), "data.sets.size=2", "data.sets.input_cells=2", "data.batch_size=4",
            "model.encoder.dim=16", "model.encoder.heads=1", "model.encoder.dropout=0.2", "trainer.max_epochs=3",
            "trainer.warmup_steps=4", "callbacks=curriculum", f"callbacks.curriculum.phases={phases}", "baselines=none", "logger.every_n_steps=1",
            f"paths.runs={folder}",
        ]  # fmt: skip
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("config", ["+experiment=simulated_perturbseq", *overrides])

    cfg = cells(tmp_path / "told")
    assert told(monkeypatch, cfg, Tell(1, 2)) == 128 + signal.SIGTERM
    half = last(tmp_path / "told")
    assert half["state_dict"]["active_G"].sum() == 10
    train(cells(tmp_path / "whole"))
    cfg.ckpt_path = "last"
    train(cfg)
    assert_equal_runs(tmp_path / "whole", tmp_path / "told", "curriculum/step_tokens")
    (history,) = (tmp_path / "told").glob("*/*/history.csv")
    rows = pd.read_csv(history)
    assert rows["curriculum/accumulated"].tolist()[1:] == [2, 1]  # of five batches
    before, after = rows["curriculum/steps"].tolist()[:2]
    assert before < half["global_step"] < after


def test_a_half_epoch_does_not_go_on_with_another_number_of_processes(tmp_path):
    callback = Requeue(Signals(tmp_path / "last.ckpt"), tmp_path / "last.ckpt")
    trainer = lightning.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    with pytest.raises(InputError, match=r"by 2 processes and can't go on with 1: .*best\.ckpt"):
        callback.on_load_checkpoint(trainer, None, {KEY: [torch.zeros(1), torch.zeros(1)]})


def stop(folder: Path, stepped: bool = True) -> None:
    """What a run does that is told to end while it scores, or before it trains."""
    (folder / "last.ckpt").touch()
    signals = Signals(folder / "last.ckpt")
    signals.stepped = stepped
    with pytest.raises(Stopped) as stopped, signals:
        os.kill(os.getpid(), signal.SIGUSR1)
    assert stopped.value.code == 128 + signal.SIGUSR1
    for number in TERMINATION_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def asked(tmp_path, monkeypatch) -> Path:
    """A stand-in for scontrol writes down what it is asked, and says that the job is in the state of the file."""
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "JobId=7 JobState=$(cat {tmp_path}/state)"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "state").write_text("RUNNING Requeue=1")
    return tmp_path / "asked"


def test_a_running_job_is_requeued_by_the_number_of_its_own_task(asked, monkeypatch, capsys):
    """The plain number of an array's last task is the whole array's."""
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    stop(asked.parent)
    assert asked.read_text().splitlines() == ["-o show job 7_3", "requeue 7_3"]
    assert "job 7_3 is requeued" in capsys.readouterr().err


def test_a_run_of_a_sweeps_agent_leaves_the_agents_job_alone(asked, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    stop(asked.parent)
    assert not asked.exists()
    assert "ckpt_path=last" in capsys.readouterr().err


def test_a_cancelled_job_is_not_brought_back(asked, capsys):
    (asked.parent / "state").write_text("COMPLETING")
    stop(asked.parent)
    assert asked.read_text().splitlines() == ["-o show job 7"]
    assert "not requeued: the job is completing (cancelled" in capsys.readouterr().err


def test_a_job_whose_limit_allows_no_step_is_not_requeued_for_ever(asked, monkeypatch, capsys):
    stop(asked.parent, stepped=False)
    assert "requeue 7" in asked.read_text(), "the first start may have spent its time on the data"
    asked.unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    stop(asked.parent, stepped=False)
    assert not asked.exists()
    assert "made no step since its last start" in capsys.readouterr().err


def test_a_job_that_slurm_refuses_to_requeue_says_why(asked, capsys):
    (asked.parent / "scontrol").write_text(
        '#!/bin/sh\n[ $1 = requeue ] && echo "Requested operation is presently '
        'disabled" >&2 && exit 1\necho JobState=RUNNING\n'
    )
    stop(asked.parent)
    assert (
        "not requeued: Requested operation is presently disabled; go on with ckpt_path=last" in capsys.readouterr().err
    )


def test_ctrl_c_saves_at_the_end_of_the_step_and_puts_no_job_back(asked, monkeypatch, tmp_path_factory, capfd):
    """It was silent with several processes, and lost the epoch."""
    folder = tmp_path_factory.mktemp("ctrl_c")
    assert told(monkeypatch, config(folder), Tell(1, 4, signal.SIGINT)) == 130
    said = capfd.readouterr().err
    assert "Ctrl-C: saving at the end of this step; a second one ends the run at once" in said
    assert "SIGINT (epoch 1, 6 of 12 batches): saved" in said
    assert "go on with ckpt_path=last" in said
    assert last(folder)["global_step"] == 9
    assert not asked.exists(), "a job that its user stops is not put back"


def test_a_second_ctrl_c_ends_at_once_and_another_signal_does_not(tmp_path, capsys):
    signals = Signals(tmp_path / "last.ckpt")
    with pytest.raises(Stopped) as stopped, signals:  # noqa: PT012
        signals.training = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert signals.received == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it goes on")
    assert stopped.value.code == 130
    assert "at once): nothing to save yet; start it again" in capsys.readouterr().err


def test_ctrl_c_is_for_others_where_it_is_ignored(tmp_path):
    """In the background of a shell, and in processes that a run has started."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals(tmp_path / "last.ckpt") as signals:
            os.kill(os.getpid(), signal.SIGINT)
            assert not signals.received
    finally:
        signal.signal(signal.SIGINT, before)
