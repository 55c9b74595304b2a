"""A search for a model's knobs (``hydra/sweeper=optuna``) that goes on where it was killed."""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from torchcell.io.errors import InputError
from torchcell.training.entry import is_plain

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from optuna import Study


AGAIN = "torchcell:again"
"""Attribute of a trial that was killed, and whose parameters are tried again: it is none of the ``n_trials``."""

KILLED = "torchcell:killed"
"""Attribute of every trial that was killed."""

_locks: list[Any] = []
"""Held until the process ends. Not an attribute, since a launcher pickles the callback into its jobs."""


class Search(Callback):
    """Makes Optuna's sweeper one that goes on, and tells what it does.

    Hydra's plugin alone would start ``n_trials`` more at each call, draw the first ones again, and leave a killed
    trial as it is.

    Args:
        tries: Times that a trial may take the process with it before it counts as failed.
    """

    def __init__(self, tries: int = 3) -> None:
        self.tries = tries
        self.space: dict[str, str] = {}
        self.left = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Find the study of this config, queue what was killed, and set what is left of ``n_trials``."""
        try:
            self._start(config)
        except InputError as error:
            sys.exit(f"error: {error}")  # any exception would become a warning of Hydra's, and the search run on

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Say which trial begins."""
        varied = [one for one in config.hydra.overrides.task if one.partition("=")[0] in self.space]
        _say(f"\ntrial {config.hydra.job.num + 1} of {self.left}: {' '.join(varied)}")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Say how it ended; the plugin tells of a failure in one line, which is enough for bad input only."""
        outcome = job_return._return_value  # the property would raise it
        if not isinstance(outcome, Exception):
            _say(f"val/score {outcome}")
        elif not is_plain(outcome):
            traceback.print_exception(outcome)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the best trials, and where they stand."""
        study = _study(config.hydra.sweeper)
        if study is not None:
            _summary(study, Path(config.hydra.sweep.dir))

    def _start(self, config: DictConfig) -> None:
        if config.overwrite:
            raise InputError(
                "overwrite=true in a search would throw its own trials away; to start anew delete "
                f"{config.hydra.sweeper.storage} or give hydra.sweeper.study_name=NAME"
            )
        sweeper = config.hydra.sweeper
        self.space = _ranges(config)
        if not self.space:
            raise InputError("nothing to search for: give a range, e.g. 'model.dim=choice(32,64)'")
        with read_write(config), open_dict(config):
            if sweeper.study_name is None:
                sweeper.study_name = _name(config)
            database = _database(sweeper.storage)
            self.left = int(sweeper.n_trials)
            if database is None:  # kept elsewhere or nowhere: nothing to be found again
                return
            config.hydra.sweep.dir = str(database.parent)
            _lock(database.with_name(f".search-{sweeper.study_name}.lock"))
            study = _study(sweeper)
            assert study is not None
            queued = revive(study, self.tries)
            done = counted(study)
            self.left = max(0, int(sweeper.n_trials) - done)
            sweeper.n_trials = self.left
            if sweeper.sampler.get("seed") is not None:  # the same seed would draw the first trials again
                sweeper.sampler.seed = int(sweeper.sampler.seed) + len(study.trials)
        goes_on = f", {queued} of them killed before" if queued else ""
        _say(f"search {sweeper.study_name}: {done} trials done, {self.left} to go{goes_on}; {database}")
        _say("\n".join(f"  {key}: {text}" for key, text in self.space.items()))


def revive(study: Study, tries: int) -> int:
    """Fail the trials that a killed process left running, and queue their parameters again.

    Args:
        study: Of which no other process is at work.
        tries: Times that the same parameters may be killed.

    Returns:
        How many trials are queued.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.trial import TrialState

    storage = study._storage
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        earlier = sum(one.params == trial.params and KILLED in one.user_attrs for one in study.trials)
        again = earlier + 1 < tries
        storage.set_trial_user_attr(trial._trial_id, KILLED, True)
        if again:
            storage.set_trial_user_attr(trial._trial_id, AGAIN, True)
        study.tell(trial.number, state=TrialState.FAIL)
        if again and trial.params:  # else it was killed before anything was drawn
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.enqueue_trial(trial.params)
    return len(study.get_trials(states=(TrialState.WAITING,)))


def counted(study: Study) -> int:
    """Trials that are over: complete or failed, but for those that were killed and are tried again."""
    return sum(trial.state.is_finished() and AGAIN not in trial.user_attrs for trial in study.trials)


def _ranges(config: DictConfig) -> dict[str, str]:
    """The range of each key that is varied: of the model's search space, and of the command line, which overrules."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = [f"{key}={text}" for key, text in (config.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*given, *config.hydra.overrides.task])
    found: dict[str, str] = {}
    for one in parsed:
        found.pop(one.get_key_element(), None)
        if one.is_sweep_override():
            found[one.get_key_element()] = str(one.input_line).partition("=")[2]
    return found


def _name(config: DictConfig) -> str:
    """Eight digits that change with whatever changes what is searched for or among what."""
    from torchcell.training.run_folder import config_hash

    job = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    what = [config_hash(job), config.seed, OmegaConf.to_container(config.hydra.sweeper.params), _ranges(config)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]


def _database(storage: Any) -> Path | None:
    """The file behind a storage URL; none for other databases."""
    scheme, _, path = str(storage).partition(":///")
    return Path(path) if scheme == "sqlite" else None


def _lock(path: Path) -> None:
    """Hold the study until this process ends: all that it finds running has then been killed."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"this search is running already (it holds {path}); several trials at a time: hydra.sweeper.n_jobs=4 "
            "hydra/launcher=submitit_slurm"
        ) from None
    _locks.append(lock)


def _study(sweeper: DictConfig) -> Study | None:
    """The study of a sweeper that keeps its trials in a file."""
    if _database(sweeper.storage) is None:
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(sweeper.storage)
    return optuna.create_study(
        storage=storage, study_name=sweeper.study_name, direction=sweeper.direction, load_if_exists=True
    )


def _summary(study: Study, folder: Path) -> None:
    from optuna.trial import TrialState
    from rich.console import Console
    from rich.table import Table

    complete = study.get_trials(states=(TrialState.COMPLETE,))
    failed = counted(study) - len(complete)
    best = sorted(complete, key=lambda trial: trial.value or 0.0, reverse=True)[:5]
    table = Table(title=f"{len(complete)} trials, {failed} failed; the best by val/score", title_justify="left")
    names = list(best[0].params) if best else []
    for name in ("trial", "val/score", *names):
        table.add_column(name, justify="right")
    for trial in best:
        values = [_shown(trial.params.get(name, "")) for name in names]
        table.add_row(str(trial.number), f"{trial.value:.4f}", *values)
    (Console() if sys.stdout.isatty() else Console(width=200)).print(table)
    _say(f"wrote {folder / 'optimization_results.yaml'}")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _say(text: str) -> None:
    print(text, flush=True)
