"""A search survives a kill and a failed trial: what was killed goes on, and the number of trials is as asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from torchcell.io.errors import InputError
from torchcell.training.entry import conf_dir, prefer_own_choices
from torchcell.training.run_folder import RunFolder, finished_score
from torchcell.training.search import Search
from torchcell.training.study import AGAIN, counted, open_storage, revive

MODELS = sorted({path.stem for path in (conf_dir() / "model").glob("*.yaml")} - {"stack"})  # nothing of it is trained
TINY = (
    "data.record.n_genes=120", "data.record.n_sets=300", "data.record.n_queries=16", "data.record.n_arrays=60",
    "model.encoder.dim=16", "model.readout.heads=1", "trainer.max_epochs=3", "trainer.warmup_steps=2", "evaluation.n_boot=10",
    "baselines=none",
)  # fmt: skip
TESTS = Path(__file__).resolve().parents[1]


def composed(*overrides: str):
    prefer_own_choices()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")


def trials_of(path):
    """Of the one study that a journal holds."""
    storage = open_storage(str(path))
    (about,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=about.study_name, storage=storage).trials


def drawn(study) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_float("rate", 0, 1)
    return trial


def test_a_killed_trial_is_queued_again_and_is_none_of_the_count(study):
    study.tell(drawn(study), 0.5)
    study.tell(drawn(study), state=optuna.trial.TrialState.FAIL)
    killed = drawn(study)
    assert revive(study, tries=3) == 1
    assert counted(study) == 2
    assert drawn(study).params == killed.params


def test_a_trial_that_always_takes_the_process_with_it_counts_as_failed_in_the_end(study):
    params = drawn(study).params
    for _ in range(2):
        assert revive(study, tries=3) == 1
        assert counted(study) == 0
        assert drawn(study).params == params
    assert revive(study, tries=3) == 0
    assert counted(study) == 1


def test_a_trial_killed_before_anything_was_drawn_leaves_nothing_to_repeat(study):
    study.ask()
    assert revive(study, tries=3) == 0
    assert counted(study) == 0


@pytest.mark.parametrize("name", MODELS)
def test_every_search_space_is_of_its_model_and_of_a_hard_split(name):
    config = composed("hydra/sweeper=optuna", f"model={name}")
    params = config.hydra.sweeper.params
    overrides = [f"{key}={text}" for key, text in params.items()]
    ranges = [one for one in OverridesParser.create().parse_overrides(overrides) if one.is_sweep_override()]
    for one in ranges:
        assert isinstance(OmegaConf.select(config, one.key_or_group, throw_on_missing=True), int | float), (
            one.key_or_group
        )
    assert len(ranges) > 1
    assert params.split not in (None, "random")


def test_a_variant_is_searched_as_its_base_unless_it_has_a_space_of_its_own():
    def space(model: str) -> dict[str, str]:
        return dict(composed("hydra/sweeper=optuna", f"model={model}").hydra.sweeper.params)

    assert space("chemoe_small") == space("chemoe") != space("response_mlp")
    assert space("latent_shift") == space("response_product") == space("response_mlp")
    large, small = space("perturbed_cell_gnn_large"), space("perturbed_cell_gnn")
    assert {key for key in large if large[key] != small[key]} == {"model.encoder.dim"}


def started(*overrides: str):
    cfg = composed("hydra/sweeper=optuna", *overrides)
    search = Search(cfg)
    search.start()
    return search, cfg.hydra.sweeper


def test_a_study_is_of_one_config_and_one_space(tmp_path):
    first = started("+experiment=simulated_dango", f"paths.runs={tmp_path}/a")[1].study_name
    assert (
        started("+experiment=simulated_dango", f"paths.runs={tmp_path}/b", "hydra.sweeper.n_trials=3")[1].study_name
        == first
    )
    others = [
        started(f"paths.runs={tmp_path}/{i}", "+experiment=simulated_dango", change)[1].study_name
        for i, change in enumerate(["seed=1", "trainer.max_epochs=7", "+hydra.sweeper.params.seed='choice(1,2)'"])
    ]
    assert len({first, *others}) == 4


def test_a_search_that_is_running_is_not_started_twice_and_overwrites_nothing(tmp_path):
    started(f"paths.runs={tmp_path}")
    with pytest.raises(InputError, match="running already"):
        started(f"paths.runs={tmp_path}")
    with pytest.raises(InputError, match="overwrite=true in a search"):
        started(f"paths.runs={tmp_path}/b", "overwrite=true")


def test_a_finished_run_answers_from_its_files_and_an_unfinished_one_goes_on(tmp_path):
    cfg = composed(f"paths.runs={tmp_path}", "ckpt_path=auto")
    with RunFolder.open(cfg) as folder:
        assert folder.resume is None
        assert finished_score(cfg) is None
        last = folder.path / "checkpoints" / "last.ckpt"
        last.touch()
    with RunFolder.open(cfg) as folder:
        assert folder.resume == last
    pd.DataFrame({"epoch": [0, 1, 2], "val/score": [0.1, 0.375, 0.2]}).to_csv(folder.path / "history.csv")
    (folder.path / "report.html").touch()
    assert finished_score(cfg) == 0.375


@pytest.mark.long
def test_a_killed_search_goes_on_and_ends_with_the_trials_that_were_asked_for(tmp_path):
    (tmp_path / "marks").mkdir()
    command = [
        sys.executable, "-m", "torchcell.train", "-m", "hydra/sweeper=optuna", "+experiment=simulated_dango", *TINY,
        "hydra.sweeper.n_trials=3", "+callbacks.kill._target_=killed_trial.KilledThenFailing",
        f"+callbacks.kill.marks={tmp_path}/marks",
    ]  # fmt: skip
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])

    def call() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
        )

    assert call().returncode == -signal.SIGKILL
    after = call()
    assert after.returncode == 0, after.stdout + after.stderr
    assert "0 trials done, 3 to go, 1 of them killed before" in after.stdout
    assert "planted failure" in after.stderr
    trials = trials_of(tmp_path / "runs/simulated_dango/search.journal")
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    assert [AGAIN in trial.user_attrs for trial in trials] == [True, False, False, False]
    assert trials[1].params == trials[0].params
    assert trials[2].params != trials[1].params
    finished = [report.parent for report in tmp_path.glob("runs/simulated_dango/*/report.html")]
    assert len(finished) == 2
    best = {round(float(pd.read_csv(run / "history.csv")["val/score"].max()), 6) for run in finished}
    assert best == {round(trials[i].value, 6) for i in (1, 3)}
    assert (tmp_path / "runs/simulated_dango/optimization_results.yaml").is_file()
