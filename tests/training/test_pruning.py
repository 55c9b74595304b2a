"""A trial of a search reports each epoch, and ends early where the pruner says so; its folder tells, and it can go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from torchcell.train import main, train
from torchcell.training.entry import conf_dir
from torchcell.training.run_folder import finished_score
from torchcell.training.study import VARIABLE, TrialAddress, open_storage, open_study

TINY = (
    "data.record.n_genes=120", "data.record.n_sets=300", "data.record.n_queries=16", "data.record.n_arrays=60",
    "model.encoder.dim=16", "model.readout.heads=1", "trainer.max_epochs=4", "trainer.warmup_steps=2", "evaluation.n_boot=10",
    "baselines=none", "evaluation.memory_step_s=null",
)  # fmt: skip
TESTS = Path(__file__).resolve().parents[1]
MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2, "n_warmup_steps": 1}
NONE = {"_target_": "optuna.pruners.NopPruner"}


def config(folder, *overrides):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", [*TINY, f"paths.runs={folder}", *overrides])


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """A search in which two trials have ended, with this score in each epoch, and a third is to be trained here."""

    def begun(score, pruner=MEDIAN):
        journal = str(tmp_path / "search.journal")
        study = open_study(journal, "one")
        for _ in range(2):
            trial = study.ask()
            for epoch in range(4):
                trial.report(score, epoch)
            study.tell(trial, score)
        study.ask()
        monkeypatch.setenv(VARIABLE, TrialAddress(journal, "one", 2, pruner).to_text())
        return lambda: open_study(journal, "one").trials[2]

    return begun


def scores(folder):
    history = pd.read_csv(folder / "history.csv")
    return dict(zip(history["epoch"], history["val/score"].round(6), strict=True))


def reported(trial):
    return {epoch: round(score, 6) for epoch, score in trial.intermediate_values.items()}


def test_a_trial_that_is_far_behind_ends_its_folder_says_so_and_outside_the_search_it_goes_on(
    begin, tmp_path, monkeypatch
):
    trial = begin(score=2.0)
    cfg = config(tmp_path)
    with pytest.raises(optuna.TrialPruned, match="pruned after epoch 1, val/score"):
        main(cfg)
    (mark,) = tmp_path.glob("*/*/pruned.json")
    folder = mark.parent
    assert json.loads(mark.read_text()) == {
        "pruned_after_epoch": 1, "val/score": pytest.approx(max(scores(folder).values()), abs=1e-6),
    }  # fmt: skip
    assert reported(trial()) == scores(folder)
    assert list(scores(folder)) == [0, 1], "the first is warm-up"
    assert not (folder / "report.html").exists()
    assert not (folder / "metrics.json").exists()
    assert finished_score(config(tmp_path, "ckpt_path=auto")) is None

    monkeypatch.delenv(VARIABLE)
    trained = train(config(tmp_path, "ckpt_path=last"))
    assert trained.pruned is None
    assert list(scores(folder)) == [0, 1, 2, 3]
    assert (folder / "report.html").is_file()
    assert not mark.exists()


def test_a_trial_that_is_ahead_is_trained_and_scored_as_outside_a_search(begin, tmp_path, monkeypatch):
    trial = begin(score=-2.0)
    inside = train(config(tmp_path / "inside"))
    monkeypatch.delenv(VARIABLE)
    outside = train(config(tmp_path / "outside"))
    assert inside.pruned is None
    assert inside.score == outside.score
    assert reported(trial()) == scores(inside.folder.path) == scores(outside.folder.path)
    assert (inside.folder.path / "metrics.csv").read_text() == (outside.folder.path / "metrics.csv").read_text()


def test_a_trial_behind_in_its_last_epoch_is_scored(begin, tmp_path):
    """All that pruning could save then is the scoring."""
    begin(score=2.0, pruner={**MEDIAN, "n_warmup_steps": 3})
    assert train(config(tmp_path)).scored is not None


def test_a_trial_that_goes_on_reports_its_earlier_epochs_too(begin, tmp_path, monkeypatch):
    """A killed trial is tried again under a new number, and its epochs so far stand in history.csv."""
    begin(score=2.0)
    with pytest.raises(optuna.TrialPruned):
        main(config(tmp_path))
    journal = str(tmp_path / "search.journal")
    study = open_study(journal, "one")
    study.ask()
    monkeypatch.setenv(VARIABLE, TrialAddress(journal, "one", 3, NONE).to_text())
    trained = train(config(tmp_path, "ckpt_path=auto"))
    again = open_study(journal, "one").trials[3]
    assert reported(again) == scores(trained.folder.path)
    assert list(again.intermediate_values) == [0, 1, 2, 3]


def test_a_study_that_can_not_be_reached_costs_a_warning_not_the_run(begin, tmp_path, monkeypatch):
    begin(score=2.0)
    monkeypatch.setenv(VARIABLE, TrialAddress(str(tmp_path / "search.journal"), "another", 2, MEDIAN).to_text())
    with pytest.warns(UserWarning, match="the study of this search can't be reached"):
        assert train(config(tmp_path)).scored is not None


def called(folder, *arguments):
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "torchcell.train", *arguments, *TINY], cwd=folder,
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


def test_trials_in_jobs_of_their_own_are_pruned(tmp_path):
    """Two at a time through submitit, as on a cluster: each process finds its trial by the environment."""
    pytest.importorskip("submitit", reason="pip install 'torchcell[cluster]'")
    answer = called(
        tmp_path, "-m", "hydra/sweeper=optuna", "+experiment=simulated_dango", "hydra/launcher=submitit_local",
        "hydra.launcher.timeout_min=10", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=2",
        "hydra.sweeper.pruner._target_=planted_pruner.EverySecond", "+hydra.sweeper.pruner.epoch=1",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    assert "1 trials, 0 failed, 1 pruned" in answer.stdout
    storage = open_storage(str(tmp_path / "runs/simulated_dango/search.journal"))
    (about,) = optuna.get_all_study_summaries(storage)
    whole, short = optuna.load_study(study_name=about.study_name, storage=storage).trials
    assert (whole.state.name, short.state.name) == ("COMPLETE", "PRUNED")
    assert (list(whole.intermediate_values), list(short.intermediate_values)) == ([0, 1, 2, 3], [0, 1])
    (mark,) = tmp_path.glob("runs/*/*/pruned.json")
    (report,) = tmp_path.glob("runs/*/*/report.html")
    assert reported(short) == scores(mark.parent)
    assert reported(whole) == scores(report.parent)
    assert "Traceback" not in answer.stdout + answer.stderr


def test_several_processes_report_once_and_stop_together(begin, tmp_path):
    trial = begin(score=2.0)
    answer = called(tmp_path, "trainer=ddp_cpu")
    assert "pruned after epoch 1" in answer.stderr
    (mark,) = tmp_path.glob("runs/*/*/pruned.json")
    assert reported(trial()) == scores(mark.parent)
    assert list(scores(mark.parent)) == [0, 1]
    assert "process 1" not in answer.stderr, "it leaves in order"
