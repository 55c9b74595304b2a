"""The study of a search on disk: its storage, and trials that were killed.

Trials of one search may run on several machines, and each reports to the study. The default is therefore Optuna's
journal: a text file to which one process at a time appends, under a lock file that is made by an exclusive ``open``.
This is safe on a network file system, where SQLite's locks often are not. A database URL works too.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torchcell.io.errors import InputError, readable
from torchcell.io.locks import NoAnswer, locked

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import Trial


AGAIN = "torchcell:again"
"""Attribute of a killed trial whose parameters are tried again: it does not count for ``n_trials``."""

KILLED = "torchcell:killed"
"""Attribute of every trial that was killed."""

VARIABLE = "TORCHCELL_TRIAL"
"""Environment variable by which a search names its trial to the processes that train it."""

OLD = "search.sqlite"
"""File of a study of an earlier version; its trials are copied once, and the file is not changed."""

_locks: list[Any] = []
"""Locks that are kept until the process ends."""


def study_file(storage: str) -> Path | None:
    """The file of a storage: of a journal, or of SQLite; none for other databases."""
    scheme, separator, path = storage.partition("://")
    if not separator:
        return Path(storage)
    return Path(path.removeprefix("/")) if scheme == "sqlite" else None


def open_storage(storage: str) -> BaseStorage:
    """Optuna's storage behind a path (a journal) or a database URL; its folder is created first.

    Raises:
        InputError: A database without its driver, or one that does not answer.
    """
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = study_file(storage)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    if file is not None and "://" not in storage:
        return JournalStorage(JournalFileBackend(str(file), JournalFileOpenLock(str(file))))
    try:
        return RDBStorage(storage)
    except Exception as error:  # of Optuna, SQLAlchemy or the driver
        why = " ".join(str(error).split())[:300]
        raise InputError(
            f"hydra.sweeper.storage={storage} can't be opened ({why}); without it the search is kept in a file of its "
            "own, and takes over what a search.sqlite beside that file holds of it"
        ) from None


def open_study(storage: str, name: str, **parts: Any) -> Study:
    """Open or create a study; trials of an earlier version's SQLite file are copied into it.

    Args:
        storage: Path of a journal, or a database URL.
        name: Of the study.
        parts: Sampler and pruner.
    """
    import optuna

    opened = open_storage(storage)
    file = study_file(storage)
    if file is not None and "://" not in storage and name not in _names(opened):
        _take_over(file.with_name(OLD), name, opened)
    return optuna.create_study(study_name=name, storage=opened, direction="maximize", load_if_exists=True, **parts)


def _names(storage: BaseStorage) -> list[str]:
    return [study.study_name for study in storage.get_all_studies()]


def _take_over(old: Path, name: str, storage: BaseStorage) -> None:
    """Copy a study out of an SQLite file of Optuna 2 or later, if it has one of this name."""
    import logging

    import optuna
    from optuna.storages import RDBStorage

    if not old.is_file():
        return
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the distributions' old names
        copy = shutil.copy(old, Path(folder) / OLD)
        try:
            source = RDBStorage(f"sqlite:///{copy}", skip_compatibility_check=True)
            source.upgrade()
            if name in _names(source):
                optuna.copy_study(from_study_name=name, from_storage=source, to_storage=storage)
                print(readable(f"took over the trials of {old}"), flush=True)
        except Exception as error:  # of Optuna, SQLAlchemy or Alembic
            why = " ".join(str(error).split())[:300]
            raise InputError(
                f"{old}, in which an earlier version kept its trials, can't be read ({why}); move it away to start anew"
            ) from None


def mend_journal(path: Path) -> None:
    """Remove a last line that a full disk left incomplete; text appended to it could not be read."""
    from optuna.storages.journal import JournalFileOpenLock

    if not path.is_file():
        return
    lock = JournalFileOpenLock(str(path))
    lock.acquire()
    try:
        content = path.read_bytes()
        length = content.rfind(b"\n") + 1
        if length < len(content):
            os.truncate(path, length)
    finally:
        lock.release()


def lock_study(path: Path) -> None:
    """Lock the study until this process ends: every trial that is still running has then been killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = locked(path, wait_s=0.0)
    try:
        lock.__enter__()
    except NoAnswer as error:
        raise InputError(f"the search can't be locked by {path}: {error}") from None
    except TimeoutError:
        raise InputError(
            f"this search is running already (it locks {path}); several trials at a time: hydra.sweeper.n_jobs=4 "
            "hydra/launcher=submitit_slurm"
        ) from None
    _locks.append(lock)


def revive(study: Study, tries: int) -> int:
    """Fail the trials that a killed process left running, and queue their parameters again.

    Args:
        study: A study that no other process uses.
        tries: How often the same parameters may be killed.

    Returns:
        How many trials are queued.
    """
    from optuna.trial import TrialState

    storage = study._storage
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        earlier = sum(other.params == trial.params and KILLED in other.user_attrs for other in study.trials)
        again = earlier + 1 < tries
        storage.set_trial_user_attr(trial._trial_id, KILLED, True)
        if again:
            storage.set_trial_user_attr(trial._trial_id, AGAIN, True)
        study.tell(trial.number, state=TrialState.FAIL)
        if again and trial.params:  # else it was killed before anything was drawn
            study.enqueue_trial(trial.params)
    return len(study.get_trials(states=(TrialState.WAITING,)))


def counted(study: Study) -> int:
    """Number of finished trials: complete, pruned or failed, without killed ones that are tried again."""
    return sum(trial.state.is_finished() and AGAIN not in trial.user_attrs for trial in study.trials)


@dataclass(frozen=True)
class TrialAddress:
    """Address by which a training process finds its trial.

    Attributes:
        storage: Path of a journal, or a database URL.
        study: Name of the study.
        number: Of the trial.
        pruner: Config of the pruner.
    """

    storage: str
    study: str
    number: int
    pruner: dict[str, Any]

    def to_text(self) -> str:
        """For the environment variable ``VARIABLE``."""
        return json.dumps(asdict(self))

    @classmethod
    def of_environment(cls) -> Self | None:
        """The trial of this process; None where no search has started it."""
        text = os.environ.get(VARIABLE)
        return None if text is None else cls(**json.loads(text))

    def open(self) -> Trial:
        """The trial, for reports and pruning."""
        import optuna

        study = optuna.load_study(
            study_name=self.study,
            storage=open_storage(self.storage),
            sampler=optuna.samplers.RandomSampler(),  # not used: all parameters are set
            pruner=make_pruner(self.pruner),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.trial.Trial(study, study.get_trials(deepcopy=False)[self.number]._trial_id)


def make_pruner(config: Any) -> BasePruner:
    """The pruner of ``hydra.sweeper.pruner``."""
    from hydra.utils import instantiate

    pruner: BasePruner = instantiate(config)
    return pruner
