"""Fits the baselines on the training part; keeps their predictions, which many runs share."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from rich.console import Console

import torchcell.baselines
from torchcell.data.cache import atomic_write
from torchcell.data.sources import data_home
from torchcell.datamodules.base import RecordDataModule


def baseline_predictions(datamodule: RecordDataModule, configs: Mapping[str, Any], part: str) -> dict[str, np.ndarray]:
    """Predictions of every baseline for ``part``, float32 [n, T] by name.

    A baseline sees the training part, the validation part to choose its knobs, and a blinded copy of
    ``part``. Predictions are cached under the hash of the data, the split, the graph and the config.

    Args:
        datamodule: The data with its split.
        configs: ``_target_`` configs by name; an entry that is null is left out.
        part: Which samples to predict.
    """
    console = Console(stderr=True)
    wanted = {name: config for name, config in configs.items() if config is not None}
    if not wanted:
        return {}
    folder = data_home() / "baselines"
    data_hash = _data_hash(datamodule)
    train, val = datamodule.record("train"), datamodule.record("val")
    blind = datamodule.record(part).blind()
    predictions: dict[str, np.ndarray] = {}
    for name, config in wanted.items():
        text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True)
        key = hashlib.sha256("\n".join([data_hash, part, text, _code_hash(config)]).encode()).hexdigest()
        path = folder / f"{name}-{key[:16]}.npy"
        if path.is_file():
            predictions[name] = np.load(path, allow_pickle=False)
            continue
        console.print(f"baseline {name} ...", end=" ", highlight=False)
        start = time.perf_counter()
        fitted = instantiate(config).fit(train, val, datamodule.graph)
        predictions[name] = np.asarray(fitted.predict(blind), dtype=np.float32)
        console.print(f"{time.perf_counter() - start:.1f} s", highlight=False)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.save(file, predictions[name], allow_pickle=False)
    return predictions


def _data_hash(datamodule: RecordDataModule) -> str:
    """sha256 of the split, the graph and every field of the record."""
    digest = hashlib.sha256(datamodule.split.hash.encode())
    digest.update((datamodule.graph.hash if datamodule.graph is not None else "no graph").encode())
    _feed(digest, vars(datamodule.record_whole))
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    """Add a value to the digest: an array by its bytes, a mapping by its sorted items, the rest by its text."""
    if isinstance(value, Mapping):
        for name in sorted(value):
            digest.update(f"{name}:".encode())
            _feed(digest, value[name])
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype} {value.shape}".encode())
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
    files = [*sorted(Path(str(torchcell.baselines.__file__)).parent.glob("*.py")), *([Path(own)] if own else [])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
