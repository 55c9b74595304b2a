"""Fits the baselines on the training part; keeps their predictions, which many runs share."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
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
    data_hash, code_hash = _data_hash(datamodule), _code_hash()
    train, val = datamodule.record("train"), datamodule.record("val")
    blind = datamodule.record(part).blind()
    predictions: dict[str, np.ndarray] = {}
    for name, config in wanted.items():
        text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True)
        key = hashlib.sha256("\n".join([data_hash, part, text, code_hash]).encode()).hexdigest()
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
    """sha256 of the split, the graph and every array of the record."""
    digest = hashlib.sha256(datamodule.split.hash.encode())
    digest.update((datamodule.graph.hash if datamodule.graph is not None else "no graph").encode())
    for name, value in sorted(vars(datamodule.record_whole).items()):
        if isinstance(value, np.ndarray):
            digest.update(f"{name} {value.dtype} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _code_hash() -> str:
    """sha256 of the baselines' source, so that a change of code is never answered from the cache."""
    files = sorted(Path(str(torchcell.baselines.__file__)).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
