"""Fits the baselines on the training part; keeps their predictions, which many runs share."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from rich.console import Console

import torchcell.baselines
import torchcell.datamodules
from torchcell.data.cache import atomic_write
from torchcell.data.sources import data_home
from torchcell.datamodules.base import RecordDataModule


def baseline_predictions(
    datamodule: RecordDataModule, configs: Mapping[str, Any], part: str
) -> dict[str, dict[str, np.ndarray]]:
    """Predictions of every baseline for all that is asked of ``part``, float32 [n, T]: by record, then by baseline.

    A baseline sees the training part, the validation part to choose its knobs, and a blinded copy of
    what is asked. Predictions are cached under the hash of the data, the split, the graph, what is asked and the
    config.

    Args:
        datamodule: The data with its split.
        configs: ``_target_`` configs by name; an entry that is null is left out.
        part: Which samples to predict.
    """
    console = Console(stderr=True)
    wanted = {name: config for name, config in configs.items() if config is not None}
    asked = datamodule.asked(part)
    predictions: dict[str, dict[str, np.ndarray]] = {what: {} for what in asked}
    if not wanted:
        return predictions
    folder = data_home() / "baselines"
    data_hash = _data_hash(datamodule)
    keys = {what: "\n".join([data_hash, part, what, _asked_hash(what, record)]) for what, record in asked.items()}
    train, val = datamodule.record("train"), datamodule.record("val")
    for name, config in wanted.items():
        text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True) + _code_hash(config)
        digests = {what: hashlib.sha256(f"{key}\n{text}".encode()).hexdigest() for what, key in keys.items()}
        paths = {what: folder / f"{name}-{digest[:16]}.npy" for what, digest in digests.items()}
        if not all(path.is_file() for path in paths.values()):
            console.print(f"baseline {name} ...", highlight=False)  # a line of its own: a bar may follow
            start = time.perf_counter()
            fitted = instantiate(config).fit(train, val, datamodule.graph)
            for what, path in paths.items():
                predicted = np.asarray(fitted.predict(asked[what].blind()), dtype=np.float32)
                folder.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as temporary, open(temporary, "wb") as file:
                    np.save(file, datamodule.condense(part, what, predicted), allow_pickle=False)
            console.print(f"baseline {name}: {time.perf_counter() - start:.1f} s", highlight=False)
        for what, path in paths.items():
            predictions[what][name] = np.load(path, allow_pickle=False)
    return predictions


def _data_hash(datamodule: RecordDataModule) -> str:
    """sha256 of the split, the graph and every field of the record."""
    digest = hashlib.sha256(datamodule.split.hash.encode())
    digest.update((datamodule.graph.hash if datamodule.graph is not None else "no graph").encode())
    _feed(digest, datamodule.record_whole)
    return digest.hexdigest()


def _asked_hash(what: str, record: Any) -> str:
    """sha256 of a record that is asked for beside the part itself, which data, split and part's name tell already; and
    of the datamodules' source, which says what is kept of an answer.
    """
    digest = hashlib.sha256()
    if what:
        _feed(digest, record)
        for file in sorted(Path(str(torchcell.datamodules.__file__)).parent.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    """Add a value to the digest: an array by its bytes, a mapping or a record by its items, the rest by its text."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        for name in sorted(value):
            digest.update(f"{name}:".encode())
            _feed(digest, value[name])
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype} {value.shape}".encode())
        if 0 in value.strides:  # one value seen many times
            value = value[tuple(slice(1) if step == 0 else slice(None) for step in value.strides)]
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, np.ndarray):
        digest.update(repr(value.tolist()).encode())
    else:
        digest.update(repr(value).encode())


def _code_hash(config: Any) -> str:
    """sha256 of our baselines' source and of the file that defines this one: changed code is never answered from
    the cache. (What a baseline imports from elsewhere is not followed.)
    """
    own = inspect.getsourcefile(get_object(config["_target_"]))
    files = [*sorted(Path(str(torchcell.baselines.__file__)).parent.rglob("*.py")), *([Path(own)] if own else [])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
