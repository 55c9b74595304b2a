"""A search for hyper-parameters (``hydra/sweeper=optuna``) that goes on after it was killed."""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from torchcell.io.errors import InputError, readable
from torchcell.training.entry import is_plain
from torchcell.training.study import (
    VARIABLE,
    TrialAddress,
    counted,
    lock_study,
    make_pruner,
    mend_journal,
    open_study,
    revive,
    study_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra.core.override_parser.types import Override
    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial, TrialState


RESULTS = "optimization_results.yaml"
"""The best trial, beside the study."""


class Search:
    """The trials of one call: draws parameters, trains them by Hydra's launcher, and stores their scores.

    Args:
        config: Composed for a multirun; ``hydra.sweeper`` has the keys of ``conf/hydra/sweeper/optuna.yaml``.
        launcher: Runs the trials.
    """

    def __init__(self, config: DictConfig, launcher: Launcher | None = None) -> None:
        self.config = config
        self.keys = config.hydra.sweeper
        self.launcher = launcher
        self.remaining = 0

    def run(self) -> None:
        """Open the study, run the remaining of ``n_trials``, and print the best trials.

        Raises:
            InputError: Nothing to search for; the search is running already; no trial ended with a score.
        """
        study = self.start()
        number = 0
        while number < self.remaining:
            trials = [
                study.ask(self.space.distributions) for _ in range(min(self.keys.n_jobs, self.remaining - number))
            ]
            overrides = [self._overrides(trial) for trial in trials]
            for i, trial in enumerate(trials, number + 1):
                _say(f"\ntrial {i} of {self.remaining}: {' '.join(_assigned(trial))}")
            assert self.launcher is not None
            returns = self.launcher.launch(overrides, initial_job_idx=number)
            failures = [_record(study, trial, result) for trial, result in zip(trials, returns, strict=True)]
            failed = [error for error in failures if error is not None]
            if len(failed) > self.keys.max_failure_rate * len(trials):
                raise failed[0]
            number += len(trials)
        _summarize(study, Path(self.config.hydra.sweep.dir))

    def start(self) -> Study:
        """The study of this config, with killed trials queued; sets the ``remaining`` number of ``n_trials``."""
        config, keys = self.config, self.keys
        if config.overwrite:
            raise InputError(
                "overwrite=true in a search would throw its own trials away; to start anew delete "
                f"{keys.storage} or give hydra.sweeper.study_name=NAME"
            )
        self.space = Space.of(config)
        if not self.space.ranges:
            raise InputError("nothing to search for: give a range, e.g. 'model.encoder.dim=choice(32,64)'")
        if keys.storage is None:
            raise InputError(
                "hydra.sweeper.storage is null: give the file in which the trials are kept, or leave it out"
            )
        file = study_file(str(keys.storage))
        with read_write(config), open_dict(config):
            if keys.study_name is None:
                keys.study_name = _name(config, self.space)
            if file is not None:
                config.hydra.sweep.dir = str(file.parent)
        if file is not None:
            lock_study(file.with_name(f".search-{keys.study_name}.lock"))
            if "://" not in keys.storage:
                mend_journal(file)
        study = open_study(str(keys.storage), keys.study_name, pruner=make_pruner(keys.pruner))
        queued = 0 if file is None else revive(study, keys.tries)  # elsewhere others may be at work
        done = counted(study)
        study.sampler = self._sampler(len(study.trials))
        self.remaining = max(0, min(int(keys.n_trials), self._most()) - done)
        goes_on = f", {queued} of them killed before" if queued else ""
        _say(f"search {keys.study_name}: {done} trials done, {self.remaining} to go{goes_on}; {file or keys.storage}")
        _say("\n".join(f"  {key}: {text}" for key, text in self.space.ranges.items()))
        return study

    def _sampler(self, n_known: int) -> BaseSampler:
        """The sampler, with a seed that depends on the number of earlier trials."""
        from hydra.utils import instantiate

        config, further = self.keys.sampler.copy(), {}
        if self._is_grid():
            further = {"search_space": self.space.grid()}  # its seed is the order of the grid, and must stay
        elif config.get("seed") is not None:
            config.seed = int(config.seed) + n_known
        sampler: BaseSampler = instantiate(config, **further)
        return sampler

    def _is_grid(self) -> bool:
        return str(self.keys.sampler._target_).endswith(".GridSampler")

    def _most(self) -> int:
        """Largest useful number of trials: for a grid its number of points."""
        if not self._is_grid():
            return int(self.keys.n_trials)
        points = 1
        for values in self.space.grid().values():
            points *= len(values)
        return points

    def _overrides(self, trial: Trial) -> list[str]:
        """The overrides of one trial, with the address by which its processes find it."""
        from hydra.core.override_parser.types import Quote, QuotedString

        if self.keys.custom_search_space is not None:
            from hydra.utils import get_method

            get_method(self.keys.custom_search_space)(self.config, trial)
        storage = str(self.keys.storage)
        address = TrialAddress(
            storage if "://" in storage else str(Path(storage).absolute()),  # a job may start elsewhere
            self.keys.study_name,
            trial.number,
            OmegaConf.to_container(self.keys.pruner, resolve=True),  # type: ignore[arg-type]  # a mapping
        )
        text = QuotedString(address.to_text(), Quote.single).with_quotes()
        return [*_assigned(trial), *self.space.fixed.values(), f"+hydra.job.env_set.{VARIABLE}={text}"]


@dataclass(frozen=True)
class Space:
    """The keys that vary, and those that are set for all trials.

    Attributes:
        ranges: The range of each varied key as text, from the model's search space and the command line; the latter
            overrules.
        distributions: The same for Optuna.
        fixed: Overrides of all trials, by key.
        swept: The parsed override of each varied key.
    """

    ranges: dict[str, str]
    distributions: dict[str, BaseDistribution]
    fixed: dict[str, str]
    swept: dict[str, Override]

    @classmethod
    def of(cls, config: DictConfig) -> Self:
        """The space of a search, in Hydra's own grammar: ``choice``, ``range``, ``interval`` and ``tag(log, ...)``."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        given = [f"{key}={text}" for key, text in (config.hydra.sweeper.params or {}).items()]
        parsed = OverridesParser.create().parse_overrides([*given, *config.hydra.overrides.task])
        swept: dict[str, Override] = {}
        fixed: dict[str, str] = {}
        for one in parsed:
            key = one.get_key_element()
            swept.pop(key, None)
            fixed.pop(key, None)
            if one.is_sweep_override():
                swept[key] = one
            else:
                fixed[key] = str(one.input_line) if one.is_delete() else f"{key}={one.get_value_element_as_str()}"
        ranges = {key: str(one.input_line).partition("=")[2] for key, one in swept.items()}
        return cls(ranges, {key: distribution(one) for key, one in swept.items()}, fixed, swept)

    def grid(self) -> dict[str, list[Any]]:
        """All values of each key.

        Raises:
            InputError: An interval, which has no list of values.
        """
        endless = [f"{key}={self.ranges[key]}" for key, one in self.swept.items() if not one.is_discrete_sweep()]
        if endless:
            raise InputError(
                f"a grid needs choice(...) or range(...), but there is {', '.join(endless)}; give these as choices"
            )
        return {key: _values(one) for key, one in self.swept.items()}


def distribution(override: Override) -> BaseDistribution:
    """Optuna's distribution of a sweep in Hydra's grammar. Both ends of a range may be drawn, as of an interval.

    Raises:
        InputError: A sweep that is none of these.
    """
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, RangeSweep) and not value.shuffle:
        ends = value.start, value.stop, value.step
        assert value.start is not None
        assert value.stop is not None
        if any(isinstance(end, float) for end in ends):
            return FloatDistribution(float(value.start), float(value.stop), step=float(value.step))
        return IntDistribution(int(value.start), int(value.stop), step=int(value.step))
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(float(value.start), float(value.end), log=log)
    if override.is_discrete_sweep():
        return CategoricalDistribution(_values(override))
    raise InputError(f"{override.input_line}: a search takes choice(...), range(...), interval(...) and tag(log, ...)")


def _values(override: Override) -> list[Any]:
    """All values of a choice or range, as texts of the command line where they are no numbers."""
    from hydra.core.override_parser.types import Transformer

    return list(override.sweep_iterator(transformer=Transformer.encode))


def run_trial(task: Callable[[DictConfig], Any], config: DictConfig) -> Any:
    """Run one trial in the process of the launcher, and print a traceback there, since a job does not return it."""
    try:
        return task(config)
    except Exception as error:
        if not (is_plain(error) or _is_pruned(error)):
            traceback.print_exception(error)
        raise


def _record(study: Study, trial: Trial, result: JobReturn) -> Exception | None:
    """Record how a trial ended; returns the error of a failed one."""
    from optuna.trial import TrialState

    outcome = result._return_value  # the property would raise it
    if _is_pruned(outcome):
        _close(study, trial, TrialState.PRUNED)
        _say(f"trial {trial.number}: {outcome}")
        return None
    if not isinstance(outcome, Exception):
        try:
            _close(study, trial, TrialState.COMPLETE, float(outcome))
        except (TypeError, ValueError) as error:  # nothing, or a score that is undefined
            outcome = error
        else:
            _say(f"val/score {outcome}")
            return None
    _close(study, trial, TrialState.FAIL)
    print(readable(f"trial {trial.number} failed: {' '.join(str(outcome).split())}"), file=sys.stderr, flush=True)
    return outcome


def _close(study: Study, trial: Trial, state: TrialState, value: float | None = None) -> None:
    try:
        study.tell(trial, value, state)
    except Exception:  # a sampler may fail after the state is saved: that of a grid asks Optuna's own loop to stop
        if not study.trials[trial.number].state.is_finished():
            raise


def _is_pruned(outcome: Any) -> bool:
    from optuna import TrialPruned

    return isinstance(outcome, TrialPruned)


def _assigned(trial: Trial) -> list[str]:
    return [f"{key}={value}" for key, value in trial.params.items()]


def _name(config: DictConfig, space: Space) -> str:
    """Eight digits of a hash over all that defines the search."""
    from torchcell.training.run_folder import config_hash

    job = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    parts = [config_hash(job), config.seed, OmegaConf.to_container(config.hydra.sweeper.params), space.ranges]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def _summarize(study: Study, folder: Path) -> None:
    """Print the best trials, and write the best one beside the study."""
    from optuna.trial import TrialState
    from rich.table import Table

    from torchcell.io.console import Console

    complete = study.get_trials(states=(TrialState.COMPLETE,))
    pruned = len(study.get_trials(states=(TrialState.PRUNED,)))
    failed = counted(study) - len(complete) - pruned
    if not complete:
        raise InputError(f"no trial of this search has ended with a score: {failed} failed, {pruned} pruned; see above")
    counts = f"{len(complete)} trials, {failed} failed" + (f", {pruned} pruned" if pruned else "")
    best = sorted(complete, key=lambda trial: trial.value or 0.0, reverse=True)[:5]
    table = Table(title=f"{counts}; the best by val/score", title_justify="left")
    names = list(best[0].params)
    for name in ("trial", "val/score", *names):
        table.add_column(name, justify="right")
    for trial in best:
        values = [_shown(trial.params.get(name, "")) for name in names]
        table.add_row(str(trial.number), f"{trial.value:.4f}", *values)
    (Console() if sys.stdout.isatty() else Console(width=200)).print(table)
    results = {"name": "optuna", "best_params": study.best_params, "best_value": study.best_value}
    OmegaConf.save(OmegaConf.create(results), folder / RESULTS)
    _say(f"wrote {folder / RESULTS}")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _say(text: str) -> None:
    print(readable(text), flush=True)
