"""What a search draws, hands to the launcher and writes down; the trainings are replaced by a function."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import optuna
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.utils import instantiate
from omegaconf import OmegaConf, read_write
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hydra_plugins.torchcell_search import PRUNERS, SAMPLERS
from torchcell.io.errors import InputError
from torchcell.training import study as study_module
from torchcell.training.entry import conf_dir, prefer_own_choices
from torchcell.training.search import Search, distribution
from torchcell.training.study import OLD, VARIABLE, TrialAddress, counted, mend_journal, open_storage, open_study

SWEEPS = ("choice(", "range(", "interval(")
OLD_STUDY = Path(__file__).with_name("search_of_optuna_2.sql")


@pytest.fixture(autouse=True)
def _one_process_after_the_other(monkeypatch):
    """Each search of a test stands for a command of its own: the one before has let go of the study."""
    monkeypatch.setattr(study_module, "lock_study", lambda path: path.parent.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr("torchcell.training.search.lock_study", study_module.lock_study)


class Launcher:
    """Answers each trial by a function of its parameters, and keeps what it was given."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.batches: list[list[dict[str, str]]] = []

    def launch(self, overrides, initial_job_idx):
        self.batches.append([dict(one.split("=", 1) for one in each) for each in overrides])
        return [self._return(one) for one in self.batches[-1]]

    def _return(self, given):
        one = JobReturn()
        try:
            one.return_value = self.answer(given)
            one.status = JobStatus.COMPLETED
        except Exception as error:
            one.return_value = error
            one.status = JobStatus.FAILED
        return one

    @property
    def drawn(self):
        return [given for batch in self.batches for given in batch]


def composed(folder, *overrides):
    prefer_own_choices()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        swept = [one for one in ("model.encoder.dim=choice(16,32)", *overrides) if any(word in one for word in SWEEPS)]
        own = ["hydra/sweeper=optuna", f'paths.runs="{folder}"', "hydra.sweeper.n_trials=4"]
        cfg = compose("config", [*own, *(one for one in overrides if one not in swept)], return_hydra_config=True)
    with read_write(cfg):
        cfg.hydra.overrides.task += swept  # outside a multirun Hydra refuses them
    return cfg


def searched(folder, answer, *overrides):
    launcher = Launcher(answer)
    search = Search(composed(folder, *overrides), launcher)
    search.run()
    file = folder / "simulated_cell" / "search.journal"
    return launcher, open_study(str(file), search.keys.study_name)


def by_rate(given):
    return float(given["model.optimizer.lr"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("choice(1,2,4)", CategoricalDistribution([1, 2, 4])),
        ("choice(a,'b c',true)", CategoricalDistribution(["a", "b c", True])),
        ("1,2", CategoricalDistribution([1, 2])),
        ("range(1,4)", IntDistribution(1, 4)),
        ("range(0,10,5)", IntDistribution(0, 10, step=5)),
        ("range(0.0,1.0,0.25)", FloatDistribution(0.0, 1.0, step=0.25)),
        ("interval(0.0,0.4)", FloatDistribution(0.0, 0.4)),
        ("interval(1,8)", FloatDistribution(1.0, 8.0)),
        ("int(interval(1,8))", IntDistribution(1, 8)),
        ("tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
    ],
)
def test_a_range_of_hydras_grammar_is_one_of_optuna(text, expected):
    (override,) = OverridesParser.create().parse_overrides([f"key={text}"])
    assert distribution(override) == expected


def test_a_shuffled_range_is_a_choice():
    (override,) = OverridesParser.create().parse_overrides(["key=shuffle(range(0,3))"])
    assert sorted(distribution(override).choices) == [0, 1, 2]


@pytest.mark.parametrize("name", [*SAMPLERS, *PRUNERS])
def test_each_choice_is_one_that_optuna_has(tmp_path, name):
    group = "sampler" if name in SAMPLERS else "pruner"
    cfg = composed(tmp_path, f"hydra/sweeper/{group}={name}")
    further = {"search_space": {"model.encoder.dim": [16]}} if name == "grid" else {}
    assert isinstance(
        instantiate(cfg.hydra.sweeper[group], **further), (optuna.samplers.BaseSampler, optuna.pruners.BasePruner)
    )


def test_no_pruner_is_the_default_so_that_every_trial_is_trained_and_scored(tmp_path):
    assert composed(tmp_path).hydra.sweeper.pruner._target_ == "optuna.pruners.NopPruner"


def test_a_search_that_goes_on_draws_anew_and_counts_all_calls(tmp_path):
    first, _ = searched(tmp_path, by_rate, "hydra.sweeper.n_trials=2")
    second, study = searched(tmp_path, by_rate)
    assert (len(first.drawn), len(second.drawn), counted(study)) == (2, 2, 4)
    rates = {one["model.optimizer.lr"] for one in (*first.drawn, *second.drawn)}
    assert len(rates) == 4
    assert searched(tmp_path, by_rate)[0].batches == []
    results = OmegaConf.load(tmp_path / "simulated_cell" / "optimization_results.yaml")
    assert results.best_value == max(map(float, rates)) == study.best_value
    assert set(results.best_params) == set(study.best_params)


def test_the_same_seed_draws_the_same_and_another_seed_does_not(tmp_path):
    drawn = [searched(tmp_path / str(i), by_rate, f"hydra.sweeper.sampler.seed={i // 2}")[0].drawn for i in range(3)]
    rates = [[one["model.optimizer.lr"] for one in each] for each in drawn]
    assert rates[0] == rates[1] != rates[2]


def test_several_trials_at_a_time_are_launched_together(tmp_path):
    launcher, _ = searched(tmp_path, by_rate, "hydra.sweeper.n_jobs=3")
    assert [len(batch) for batch in launcher.batches] == [3, 1]


def test_each_trial_is_told_its_place_in_the_study_and_what_is_fixed(tmp_path):
    launcher, study = searched(tmp_path, by_rate, "hydra/sweeper/pruner=median", "model.readout.dropout=0.5")
    for number, given in enumerate(launcher.drawn):
        assert given["ckpt_path"] == "auto"
        assert given["model.readout.dropout"] == "0.5"
        address = TrialAddress(**json.loads(given[f"+hydra.job.env_set.{VARIABLE}"][1:-1]))
        assert (address.number, address.study) == (number, study.study_name)
        assert Path(address.storage).is_absolute()
        assert address.pruner["_target_"] == "optuna.pruners.MedianPruner"


def test_a_quote_in_a_folders_name_reaches_the_trial(tmp_path):
    launcher, _ = searched(tmp_path / "it's", by_rate, "hydra.sweeper.n_trials=1")
    text = next(f"{key}={value}" for key, value in launcher.drawn[0].items() if VARIABLE in key)
    (override,) = OverridesParser.create().parse_overrides([text])
    assert "it's" in json.loads(override.value())["storage"]


def test_a_range_of_the_command_line_replaces_a_value_and_a_value_takes_a_key_out(tmp_path):
    launcher, _ = searched(
        tmp_path, lambda given: 0.5, "split=choice(random,query_disjoint)", "model.optimizer.lr=0.01"
    )
    assert {given["model.optimizer.lr"] for given in launcher.drawn} == {"0.01"}
    assert {given["split"] for given in launcher.drawn} <= {"random", "query_disjoint"}


def test_a_failed_trial_and_an_undefined_score_are_counted_and_the_search_goes_on(tmp_path, capsys):
    ends = iter([ValueError("no such gene"), float("nan"), None, 0.25])

    def answer(given):
        end = next(ends)
        if isinstance(end, Exception):
            raise end
        return end

    _, study = searched(tmp_path, answer)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "FAIL", "COMPLETE"]
    assert "trial 0 failed: no such gene" in capsys.readouterr().err


def test_a_search_without_a_score_says_so(tmp_path):
    def fail(given):
        raise ValueError("no such gene")

    with pytest.raises(InputError, match="4 failed, 0 pruned"):
        searched(tmp_path / "a", fail)
    with pytest.raises(ValueError, match="no such gene"):
        searched(tmp_path / "b", fail, "hydra.sweeper.max_failure_rate=0")


def test_a_pruned_trial_is_no_failure_and_keeps_its_last_score(tmp_path, capsys):
    def answer(given):
        trial = TrialAddress(**json.loads(given[f"+hydra.job.env_set.{VARIABLE}"][1:-1])).open()
        trial.report(0.125, 0)
        if trial.number == 1:
            raise optuna.TrialPruned("pruned after epoch 0")
        return 0.5

    _, study = searched(tmp_path, answer, "hydra.sweeper.max_failure_rate=0")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE"]
    assert study.trials[1].value == 0.125
    assert counted(study) == 4
    assert "3 trials, 0 failed, 1 pruned" in capsys.readouterr().out


def test_a_grid_is_tried_once_each_also_when_it_goes_on(tmp_path):
    grid = ["hydra/sweeper/sampler=grid", "model.optimizer.lr=choice(0.1,0.2)", "model.embedding.decay=range(1,3)",
            "model.loss_weights.reconstruction=1.0", "hydra.sweeper.n_trials=20"]  # fmt: skip
    first, _ = searched(tmp_path, by_rate, *grid, "hydra.sweeper.n_trials=3")
    second, study = searched(tmp_path, by_rate, *grid)
    names = ("model.encoder.dim", "model.optimizer.lr", "model.embedding.decay")
    points = [tuple(given[name] for name in names) for given in (*first.drawn, *second.drawn)]
    assert len(points) == len(set(points)) == 2 * 2 * 2
    assert {point[2] for point in points} == {"1", "2"}, "a range of Hydra's ends before its stop"
    assert counted(study) == 8


def test_a_grid_of_an_interval_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a grid needs choice.*model.optimizer.lr=tag\(log, interval"):
        searched(tmp_path, by_rate, "hydra/sweeper/sampler=grid")


def draw_more(config, trial):
    trial.suggest_int("model.readout.heads", 1, 2)


def test_a_function_may_draw_more(tmp_path):
    launcher, _ = searched(tmp_path, by_rate, f"hydra.sweeper.custom_search_space={__name__}.draw_more")
    assert {given["model.readout.heads"] for given in launcher.drawn} <= {"1", "2"}


def test_the_trials_that_an_earlier_version_kept_in_sqlite_are_taken_over(tmp_path):
    """Optuna 5 can't open a file of Optuna 2 as it stands."""
    folder = tmp_path / "simulated_cell"
    folder.mkdir()
    connection = sqlite3.connect(folder / OLD)
    connection.executescript(OLD_STUDY.read_text())
    connection.close()
    before = (folder / OLD).read_bytes()
    space = ["model.encoder.layers=1", "hydra.sweeper.study_name=abcd1234", "hydra.sweeper.n_trials=5"]
    launcher, study = searched(tmp_path, by_rate, *space)
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.value for trial in study.trials[:4]] == [0.25, None, 0.5, None]
    assert float(launcher.drawn[0]["model.optimizer.lr"]) == study.trials[3].params["model.optimizer.lr"], "the killed"
    assert (folder / OLD).read_bytes() == before
    assert len(searched(tmp_path, by_rate, *space)[1].trials) == 6, "once"


def test_an_unreadable_file_of_an_earlier_version_is_named(tmp_path):
    (tmp_path / "simulated_cell").mkdir()
    (tmp_path / "simulated_cell" / OLD).write_text("no database at all, but long enough to be looked at" * 10)
    with pytest.raises(InputError, match="search.sqlite, in which an earlier version kept its trials, can't be read"):
        searched(tmp_path, by_rate)


def test_a_database_works_too(tmp_path):
    url = f"sqlite:///{tmp_path}/new/own.sqlite"
    cfg = composed(tmp_path, f"hydra.sweeper.storage={url}")
    Search(cfg, Launcher(by_rate)).run()
    assert len(open_study(url, cfg.hydra.sweeper.study_name).trials) == 4
    with pytest.raises(InputError, match="can't be opened"):
        open_storage("nosuchdatabase://host/name")


def test_a_line_that_a_full_disk_cut_off_costs_that_line_alone(tmp_path):
    journal = tmp_path / "search.journal"
    study = open_study(str(journal), "one")
    study.tell(study.ask(), 0.5)
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "study')
    mend_journal(journal)
    assert journal.read_bytes() == whole
    again = open_study(str(journal), "one")
    again.tell(again.ask(), 0.25)
    assert [trial.value for trial in open_study(str(journal), "one").trials] == [0.5, 0.25]
