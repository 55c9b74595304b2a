"""Fits the baselines on the training part; caches states and predictions, which many runs share."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
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

import torchcell
import torchcell.core
from torchcell.core.datamodule import RecordDataModule, drawn
from torchcell.core.predictor import Predictor
from torchcell.io.cache import atomic_write, kept, read_arrays, write_arrays
from torchcell.io.console import Console
from torchcell.io.errors import InputError
from torchcell.io.fingerprint import fingerprint
from torchcell.io.paths import own_home
from torchcell.io.progress import stage, track
from torchcell.io.state import read_state, write_state
from torchcell.training.checkpoint import Checkpoint

FOLDER = "baselines"
"""Folder of a run with a file for each fitted baseline."""
MODEL = "model"
"""Name of the trained model in ``system=NAME``."""
FORMAT = 2
"""Version of the cached files."""
MANY = 500_000
"""Samples from which on a baseline may take more than a minute, and says so."""


@dataclass(frozen=True, eq=False)
class Baselines:
    """Predictions and fitted states of the baselines of a run.

    Attributes:
        predictions: Float32 [n, T], by record of ``RecordDataModule.evaluation_inputs``, then by baseline.
        files: Files of the cache with the fitted states, by name.
        states: States of the baselines that the cache could not keep, by name.
        contributions: What sources add to the predictions of those that are sums, see ``Predictor.contributions``.
        notes: Which of them were fitted to a part of the training samples, see ``Predictor.most_samples``.
    """

    predictions: dict[str, dict[str, np.ndarray]]
    files: dict[str, Path] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    contributions: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> list[Path]:
        """Write ``baselines/NAME.npz`` into a run folder, for ``predict system=NAME``.

        A file of the cache is copied, never linked: a change to the file of one run must not change the baselines of
        other runs.
        """
        written = []
        for name, file in self.files.items():
            with atomic_write(folder / FOLDER / f"{name}.npz") as temporary:
                shutil.copyfile(file, temporary)
            written.append(folder / FOLDER / f"{name}.npz")
        for name, state in self.states.items():
            write_state(folder / FOLDER / f"{name}.npz", state)
            written.append(folder / FOLDER / f"{name}.npz")
        return written


def fit_baselines(datamodule: RecordDataModule, configs: Mapping[str, Any], part: str) -> Baselines:
    """Fit every baseline, and predict the evaluation inputs of ``part``.

    A baseline sees the training part, the validation part to choose its hyper-parameters, and a blinded copy of the
    inputs. Its state is cached under a hash of the values of data and graph, the split and the config; its predictions
    also under a hash of the inputs.

    Args:
        datamodule: The data with its split.
        configs: ``_target_`` configs by name; an entry that is null is left out.
        part: Part of the split to predict.
    """
    used = {name: config for name, config in configs.items() if config is not None}
    most = {name: most_samples(config, datamodule) for name, config in used.items()}
    if datamodule.prior is not None:  # which was fitted to all of them: the model must beat no less
        most[datamodule.prior.name] = None
    inputs = datamodule.evaluation_inputs(part)
    n = len(datamodule.split.index("train"))
    said = [
        f"{name} was fitted to {few:,} of the {n:,} training samples, drawn by chance"
        for name, few in most.items()
        if few
    ]
    baselines = Baselines({record: {} for record in inputs}, notes=tuple(said))
    if not used:
        return baselines
    values = data_hash(datamodule)
    keys = {key: "\n".join([values, part, key, _input_hash(datamodule, make)]) for key, make in inputs.items()}
    for number, (name, config) in enumerate(used.items(), 1):
        text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True) + code_hash(config)
        text += f"{most[name]:,} samples" if most[name] else ""
        label = f"baseline {number} of {len(used)}, {name}"
        fit = Fit(name, label, config, datamodule, cache_file("fitted", name, values, text), most[name])
        path = cache_file("baselines", name, *keys.values(), text, str(FORMAT))
        make = partial(fit.predictions, inputs, part)
        with stage(label):
            state = fit.state()
            arrays = kept(path, read_arrays, make, lambda file, made: write_arrays(file, **made))
        if fit.path.is_file():
            baselines.files[name] = fit.path
        elif state is not None:
            baselines.states[name] = state
        if state is not None and (added := state["about"].get("contributions")):
            baselines.contributions[name] = added
        for i, record in enumerate(inputs):
            baselines.predictions[record][name] = arrays[f"record{i}"]
    return baselines


def most_samples(config: Any, datamodule: RecordDataModule) -> int | None:
    """How many of the training samples a baseline is fitted to; none: all."""
    most: int | None = getattr(get_object(config["_target_"]), "most_samples", None)
    return most if most is not None and most < len(datamodule.split.index("train")) else None


class Fit:
    """One baseline, fitted when first needed, or read from the cache.

    Args:
        name: Name of the baseline.
        label: Name in messages.
        config: Its ``_target_`` config.
        datamodule: The data with its split.
        path: File of the cache.
        most: Training samples to fit it to, see ``most_samples``.
    """

    def __init__(
        self,
        name: str,
        label: str,
        config: Any,
        datamodule: RecordDataModule,
        path: Path,
        most: int | None = None,
    ) -> None:
        self.most = most
        self.name, self.label, self.config, self.datamodule, self.path = name, label, config, datamodule, path
        self.console = Console(stderr=True, markup=False)
        self.fitted: Predictor | None = None
        self.cached: dict[str, Any] | None = None

    def state(self) -> dict[str, Any] | None:
        """Content of the file in a run folder; None for a baseline whose state has no plain form."""
        try:
            self.cached = kept(self.path, read_state, self._make, write_state)
        except (TypeError, InputError) as error:
            if self.fitted is None:
                raise
            text = f"{self.label}: its fitted state can't be saved, so predict can't use it ({error})"
            self.console.print(text, highlight=False)
        return self.cached

    def _make(self) -> dict[str, Any]:
        data, start = self.datamodule, time.perf_counter()
        train = drawn(data.record("train"), self.most, {"seed": data.split.seed})
        size = "" if len(train) < MANY else f", on {len(train):,} samples (baselines.{self.name}=null leaves it out)"
        self.console.print(f"{self.label}{size} ...", highlight=False)  # a whole line, since a bar may follow
        unfitted = instantiate(self.config).with_folds(data.inner_folds)
        self.fitted = unfitted.fit(train, data.record("val"), data.graph)
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
        """The fitted baseline."""
        if self.fitted is None:
            content = self.cached if self.cached is not None else self.state()
            if self.fitted is None:
                assert content is not None
                data = self.datamodule
                self.fitted = instantiate(self.config).load_state_dict(content["state"], data.graph_of(data.spec))
        return self.fitted

    def predictions(self, inputs: Mapping[str, Callable[[], Any]], part: str) -> dict[str, np.ndarray]:
        """Predictions for all evaluation inputs in their order, as ``record0``, ``record1``, ..."""
        data, fitted = self.datamodule, self.predictor()
        return {
            f"record{i}": data.summarize_prediction(
                part, name, np.asarray(fitted.predict(make().blind()), dtype=np.float32)
            )
            for i, (name, make) in enumerate(track(inputs.items(), f"{self.label}, predict"))
        }


def saved_systems(ckpt: Path) -> list[str]:
    """Names of the fitted baselines of the run that a checkpoint belongs to."""
    return sorted(file.stem for file in (ckpt.resolve().parents[1] / FOLDER).glob("*.npz"))


def saved_baseline(saved: Checkpoint, name: str, trust: tuple[str, ...] = ()) -> Predictor:
    """A fitted baseline of the run that a checkpoint belongs to.

    Args:
        saved: The checkpoint.
        name: Name of the baseline, as in the run's tables.
        trust: Further packages whose classes the config may name.

    Raises:
        InputError: No such system, no file of it, or a file that was fitted on other data, is damaged or is of another
            version.
    """
    given = saved.checked("baselines", trust) or {}
    configs = {key: config for key, config in given.items() if config is not None}
    file = saved.path.resolve().parents[1] / FOLDER / f"{name}.npz"
    available = [system for system in saved_systems(saved.path) if system in configs]
    if name not in configs:
        systems = f"{MODEL}, {', '.join(available)}" if available else f"{MODEL} only"
        raise InputError(f"system={name}: the run of {saved.path} has no such system; it has {systems}")
    again = f"python -m torchcell.evaluate ckpt={saved.path} writes it again"
    if name not in available:
        raise InputError(f"system={name}: the run has no file of it, {file}; {again}, if its state can be saved")
    content = read_state(file)
    about = content.get("about", {})
    if (about.get("split_hash"), about.get("data_fingerprint")) != (saved.spec.split_hash, saved.spec.data_fingerprint):
        raise InputError(f"{file} was fitted on other data or another split than {saved.path}; {again}")
    try:
        graph = saved.datamodule_class(trust).graph_of(saved.spec)
        predictor: Predictor = instantiate(configs[name]).load_state_dict(content["state"], graph)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(
            f"{file} was written by torchcell {about.get('version', '?')}, and this version can't read it "
            f"({type(error).__name__}: {error}); {again}"
        ) from error
    return predictor


def cache_file(folder: str, name: str, *texts: str) -> Path:
    """The file of the cache in which a baseline has what is known by some texts.

    Raises:
        InputError: A name that could lead out of the folder, or is too long for a file's.
    """
    if not re.fullmatch(r"\w[\w.-]{,99}", name, re.ASCII):
        raise InputError(
            f"baselines: {name[:100]!r} names files: use letters, digits, '_', '-' and '.', 100 of them at most"
        )
    known = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    return own_home() / folder / f"{name}-{known}.npz"


def data_hash(datamodule: RecordDataModule) -> str:
    """sha256 of the split, of how it was made, and of all values of the samples and the graph."""
    split = datamodule.split
    made = [
        split.hash,
        split.method,
        str(split.seed),
        str(split.n_folds),
        split.group,
    ]  # inner folds go by the clusters
    return fingerprint([*made, datamodule.spec.data_fingerprint])


def _input_hash(datamodule: RecordDataModule, make: Callable[[], Any]) -> str:
    """sha256 of a record to predict, and of the datamodule's source, which says what is kept of a prediction."""
    return fingerprint([make(), *_source(type(datamodule))])


def code_hash(config: Any) -> str:
    """sha256 of the source of a baseline, so that changed code is never answered from the cache. Imports from other
    packages are not followed.
    """
    return hashlib.sha256("".join(_source(get_object(config["_target_"]))).encode()).hexdigest()


def _source(used: type) -> list[str]:
    """Source of the package of a class and of ``torchcell.core``; for a user's class only that of its file."""
    core, own = Path(str(torchcell.core.__file__)).parent, inspect.getsourcefile(used)
    ours = own is not None and core.parent in Path(own).parents
    files = [
        *core.glob("*.py"),
        *(Path(own).parent.glob("*.py") if ours and own else []),
        *([Path(own)] if own else []),
    ]
    return [file.read_text() for file in sorted(set(files))]
