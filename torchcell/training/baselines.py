"""Fits the baselines on the training part; keeps what was fitted and predicted, which many runs share."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from rich.console import Console

import torchcell
import torchcell.core
from torchcell.core.datamodule import RecordDataModule
from torchcell.core.predictor import Predictor
from torchcell.io.cache import atomic_write, kept, read_arrays, write_arrays
from torchcell.io.errors import InputError, check_targets
from torchcell.io.fingerprint import fingerprint
from torchcell.io.paths import data_home
from torchcell.io.progress import stage, track
from torchcell.io.state import read_state, write_state
from torchcell.training.checkpoint import Checkpoint
from torchcell.training.entry import conf_dir

FOLDER = "baselines"
"""Of a run, with a file for each fitted baseline."""
MODEL = "model"
"""What the trained model is called where a system is named."""
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Baselines:
    """What the baselines of a run predict, and what they were fitted to.

    Attributes:
        predictions: Float32 [n, T]: by record of ``RecordDataModule.asked``, then by baseline.
        files: Where the cache holds what a baseline was fitted to, by name.
        states: The same of those that the cache could not keep.
        contributions: What sources add to the predictions of those that are sums, see ``Predictor.contributions``.
    """

    predictions: dict[str, dict[str, np.ndarray]]
    files: dict[str, Path] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    contributions: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def write(self, folder: Path) -> list[Path]:
        """Put ``baselines/NAME.npz`` into a run's folder, from which ``predict`` asks them.

        A file of the cache is copied, never linked: who changes the file of one run must not change what others of the
        same split are held against.
        """
        found = []
        for name, file in self.files.items():
            with atomic_write(folder / FOLDER / f"{name}.npz") as temporary:
                shutil.copyfile(file, temporary)
            found.append(folder / FOLDER / f"{name}.npz")
        for name, state in self.states.items():
            write_state(folder / FOLDER / f"{name}.npz", state)
            found.append(folder / FOLDER / f"{name}.npz")
        return found


def fit_baselines(datamodule: RecordDataModule, configs: Mapping[str, Any], part: str) -> Baselines:
    """Fit every baseline, and predict all that is asked of ``part``.

    A baseline sees the training part, the validation part to choose its knobs, and a blinded copy of
    what is asked. What it was fitted to is cached under a hash of the values of the data and the graph, the split and
    the config; its predictions also under what is asked.

    Args:
        datamodule: The data with its split.
        configs: ``_target_`` configs by name; an entry that is null is left out.
        part: Which samples to predict.
    """
    wanted = {name: config for name, config in configs.items() if config is not None}
    asked = datamodule.evaluation_inputs(part)
    found = Baselines({what: {} for what in asked})
    if not wanted:
        return found
    values = data_hash(datamodule)
    keys = {what: "\n".join([values, part, what, _asked_hash(datamodule, make)]) for what, make in asked.items()}
    for number, (name, config) in enumerate(wanted.items(), 1):
        text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True) + code_hash(config)
        label = f"baseline {number} of {len(wanted)}, {name}"
        one = Fit(name, label, config, datamodule, data_home() / "fitted" / f"{name}-{short_hash(values, text)}.npz")
        path = data_home() / "baselines" / f"{name}-{short_hash(*keys.values(), text)}.npz"
        make = partial(one.predicted, asked, part)
        with stage(label):
            state = one.state()
            held = kept(path, read_arrays, make, lambda file, made: write_arrays(file, **made))
        if one.path.is_file():
            found.files[name] = one.path
        elif state is not None:
            found.states[name] = state
        if state is not None and (added := state["about"].get("contributions")):
            found.contributions[name] = added
        for i, what in enumerate(asked):
            found.predictions[what][name] = held[f"asked{i}"]
    return found


class Fit:
    """One baseline, fitted when first needed, or as the cache holds it.

    Args:
        name: Of the baseline.
        label: For the reader.
        config: Its ``_target_`` config.
        datamodule: The data with its split.
        path: Of the cache's file.
    """

    def __init__(self, name: str, label: str, config: Any, datamodule: RecordDataModule, path: Path) -> None:
        self.name, self.label, self.config, self.datamodule, self.path = name, label, config, datamodule, path
        self.console = Console(stderr=True, markup=False)
        self.fitted: Predictor | None = None
        self.known: dict[str, Any] | None = None

    def state(self) -> dict[str, Any] | None:
        """What the file of a run holds; none of a baseline whose state has no plain form."""
        try:
            self.known = kept(self.path, read_state, self._make, write_state)
        except (TypeError, InputError) as error:
            if self.fitted is None:
                raise
            said = f"{self.label}: what it was fitted to can't be kept, so predict can't ask it ({error})"
            self.console.print(said, highlight=False)
        return self.known

    def _make(self) -> dict[str, Any]:
        self.console.print(f"{self.label} ...", highlight=False)  # a line of its own: a bar may follow
        data, start = self.datamodule, time.perf_counter()
        unfitted = instantiate(self.config).with_folds(data.inner_folds)
        self.fitted = unfitted.fit(data.record("train"), data.record("val"), data.graph)
        self.console.print(f"{self.label}: {time.perf_counter() - start:.1f} s", highlight=False)
        about = {
            "format": FORMAT,
            "version": torchcell.__version__,
            "class": str(self.config["_target_"]),
            "split_hash": data.spec.split_hash,
            "data_fingerprint": data.spec.data_fingerprint,
            "contributions": self.fitted.contributions(),
        }
        return {"about": about, "state": self.fitted.state_dict()}

    def predictor(self) -> Predictor:
        """Fitted."""
        if self.fitted is None:
            known = self.known if self.known is not None else self.state()
            if self.fitted is None:
                assert known is not None
                data = self.datamodule
                self.fitted = instantiate(self.config).load_state_dict(known["state"], data.graph_of(data.spec))
        return self.fitted

    def predicted(self, asked: Mapping[str, Callable[[], Any]], part: str) -> dict[str, np.ndarray]:
        """Predictions of all that is asked, in that order, as ``asked0``, ``asked1``, ..."""
        data, fitted = self.datamodule, self.predictor()
        return {
            f"asked{i}": data.summarize_prediction(
                part, what, np.asarray(fitted.predict(make().blind()), dtype=np.float32)
            )
            for i, (what, make) in enumerate(track(asked.items(), f"{self.label}, predict"))
        }


def saved_systems(ckpt: Path) -> list[str]:
    """Names of the fitted baselines of the run that a checkpoint belongs to."""
    return sorted(file.stem for file in (ckpt.resolve().parents[1] / FOLDER).glob("*.npz"))


def saved_baseline(saved: Checkpoint, name: str, trust: tuple[str, ...] = ()) -> Predictor:
    """A fitted baseline of the run that a checkpoint belongs to.

    Args:
        saved: The checkpoint.
        name: Of the baseline, as in the run's tables.
        trust: Packages besides torchcell's whose classes the config may name.

    Raises:
        InputError: No such system, or no file of it, or one that was fitted on other data, is damaged or is of another
            version.
    """
    configs = {key: config for key, config in (saved.config.get("baselines") or {}).items() if config is not None}
    file = saved.path.resolve().parents[1] / FOLDER / f"{name}.npz"
    known = [one for one in saved_systems(saved.path) if one in configs]
    if name not in configs:
        said = f"{MODEL}, {', '.join(known)}" if known else f"{MODEL} only"
        raise InputError(f"system={name}: the run of {saved.path} has no such system; it has {said}")
    again = f"python -m torchcell.evaluate ckpt={saved.path} writes it again"
    if name not in known:
        raise InputError(f"system={name}: the run holds no file of it, {file}; {again}, if its state can be kept")
    check_targets(configs[name], trust)
    content = read_state(file)
    about = content.get("about", {})
    if (about.get("split_hash"), about.get("data_fingerprint")) != (saved.spec.split_hash, saved.spec.data_fingerprint):
        raise InputError(f"{file} was fitted on other data or another split than {saved.path}; {again}")
    try:
        graph = saved.datamodule_class(trust).graph_of(saved.spec)
        found: Predictor = instantiate(configs[name]).load_state_dict(content["state"], graph)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} was written by torchcell {about.get('version', '?')}, and this version can't read it "
            f"({type(error).__name__}: {error}); {again}"
        ) from error
    return found


def short_hash(*texts: str) -> str:
    """What a file of the cache is known by."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def departures(configs: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences on standard baselines (``conf/baselines``) that were not run, or with other settings.

    A model is better than the best of those that were run: who leaves out the strongest, or weakens it, must say so.
    """
    run = {name: _plain(config) for name, config in configs.items() if config is not None}
    files = sorted((conf_dir() / "baselines").glob("*.yaml"))
    every = [{str(name): _plain(config) for name, config in OmegaConf.load(path).items()} for path in files]
    standard = max(every, key=lambda one: len(_targets(one) & _targets(run)))  # tasks share names, not classes
    if not _targets(standard) & _targets(run):
        return ()
    missing = [name for name in standard if name not in run]
    changed = [name for name, config in standard.items() if name in run and run[name] != config]
    said = {"standard baselines not run": missing, "baselines with other settings than the standard ones": changed}
    return tuple(f"{what}: {', '.join(names)}" for what, names in said.items() if names)


def _targets(configs: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(name, config["_target_"]) for name, config in configs.items()}


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(OmegaConf.create(config), resolve=False)


def data_hash(datamodule: RecordDataModule) -> str:
    """sha256 of the split, of how it was made, and of all values of the samples and the graph."""
    split = datamodule.split
    return fingerprint(
        [split.hash, split.method, str(split.seed), str(split.n_folds), datamodule.spec.data_fingerprint]
    )


def _asked_hash(datamodule: RecordDataModule, make: Callable[[], Any]) -> str:
    """sha256 of a record that is predicted, and of the datamodule's source, which says what is kept of an answer."""
    return fingerprint([make(), *_source(type(datamodule))])


def code_hash(config: Any) -> str:
    """sha256 of the source of a baseline: changed code is never answered from the cache. (What a baseline imports from
    elsewhere is not followed.)
    """
    return hashlib.sha256("".join(_source(get_object(config["_target_"]))).encode()).hexdigest()


def _source(used: type) -> list[str]:
    """Source of the package that a class stands in, and of ``torchcell.core``; of its file alone if it is a user's."""
    core, own = Path(str(torchcell.core.__file__)).parent, inspect.getsourcefile(used)
    ours = own is not None and core.parent in Path(own).parents
    files = [
        *core.glob("*.py"),
        *(Path(own).parent.glob("*.py") if ours and own else []),
        *([Path(own)] if own else []),
    ]
    return [file.read_text() for file in sorted(set(files))]
