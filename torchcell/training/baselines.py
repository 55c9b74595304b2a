"""Fits the baselines on the training part; keeps their predictions, which many runs share."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from rich.console import Console

import torchcell.core
from torchcell.core.datamodule import RecordDataModule
from torchcell.io.cache import kept, read_arrays, write_arrays
from torchcell.io.fingerprint import fingerprint
from torchcell.io.paths import data_home
from torchcell.io.progress import stage, track
from torchcell.training.entry import conf_dir


def baseline_predictions(
    datamodule: RecordDataModule, configs: Mapping[str, Any], part: str
) -> dict[str, dict[str, np.ndarray]]:
    """Predictions of every baseline for all that is asked of ``part``, float32 [n, T]: by record, then by baseline.

    A baseline sees the training part, the validation part to choose its knobs, and a blinded copy of
    what is asked. Predictions are cached under a hash of the values of the data and the graph, the split, what is asked
    and the config.

    Args:
        datamodule: The data with its split.
        configs: ``_target_`` configs by name; an entry that is null is left out.
        part: Which samples to predict.
    """
    wanted = {name: config for name, config in configs.items() if config is not None}
    asked = datamodule.asked(part)
    predictions: dict[str, dict[str, np.ndarray]] = {what: {} for what in asked}
    if not wanted:
        return predictions
    data_hash = _data_hash(datamodule)
    keys = {what: "\n".join([data_hash, part, what, _asked_hash(datamodule, make)]) for what, make in asked.items()}
    for number, (name, config) in enumerate(wanted.items(), 1):
        text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True) + _code_hash(config)
        digest = hashlib.sha256("\n".join([*keys.values(), text]).encode()).hexdigest()
        label = f"baseline {number} of {len(wanted)}, {name}"
        make = partial(_predicted, label, config, datamodule, asked, part)
        path = data_home() / "baselines" / f"{name}-{digest[:16]}.npz"
        with stage(label):
            held = kept(path, read_arrays, make, lambda file, made: write_arrays(file, **made))
        for i, what in enumerate(asked):
            predictions[what][name] = held[f"asked{i}"]
    return predictions


def _predicted(
    label: str,
    config: Any,
    datamodule: RecordDataModule,
    asked: Mapping[str, Callable[[], Any]],
    part: str,
) -> dict[str, np.ndarray]:
    """Fit one baseline; its predictions of all that is asked, in that order, as ``asked0``, ``asked1``, ..."""
    console = Console(stderr=True, markup=False)
    console.print(f"{label} ...", highlight=False)  # a line of its own: a bar may follow
    start = time.perf_counter()
    fitted = instantiate(config).fit(datamodule.record("train"), datamodule.record("val"), datamodule.graph)
    predicted = {
        f"asked{i}": datamodule.condense(part, what, np.asarray(fitted.predict(make().blind()), dtype=np.float32))
        for i, (what, make) in enumerate(track(asked.items(), f"{label}, predict"))
    }
    console.print(f"{label}: {time.perf_counter() - start:.1f} s", highlight=False)
    return predicted


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


def _data_hash(datamodule: RecordDataModule) -> str:
    """sha256 of the split and of all values of the samples and the graph."""
    return fingerprint([datamodule.split.hash, datamodule.spec.data_fingerprint])


def _asked_hash(datamodule: RecordDataModule, make: Callable[[], Any]) -> str:
    """sha256 of a record that is predicted, and of the datamodule's source, which says what is kept of an answer."""
    return fingerprint([make(), *_source(type(datamodule))])


def _code_hash(config: Any) -> str:
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
