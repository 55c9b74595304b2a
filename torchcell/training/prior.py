"""``+model.prior=NAME``: fits a baseline as the prior of a model, and gives its predictions to the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from torchcell.core.datamodule import RecordDataModule
from torchcell.core.prior import FOLDS, Prior, out_of_fold
from torchcell.core.spec import Spec
from torchcell.io.cache import kept, read_arrays, write_arrays
from torchcell.io.errors import InputError
from torchcell.io.progress import stage
from torchcell.training.baselines import Fit, cache_file, code_hash, data_hash


def fit_prior(datamodule: RecordDataModule, cfg: DictConfig) -> tuple[Prior | None, Spec]:
    """Fit ``model.prior`` where the config names one, and let the datamodule's batches hold its predictions.

    Those of the training part are out of fold; elsewhere the prior is fitted on all of it. Both are cached.

    Returns:
        The prior, and the spec that the network is built with.

    Raises:
        InputError: No such baseline; data whose batches take no prior; a binary task.
    """
    name = OmegaConf.select(cfg, "model.prior")
    if name is None:
        return None, datamodule.spec
    config = (cfg.get("baselines") or {}).get(name)
    if config is None:
        known = [key for key, one in (cfg.get("baselines") or {}).items() if one is not None]
        raise InputError(f"model.prior={name}: the run has no baseline of this name; it has {known}")
    if not datamodule.takes_prior or datamodule.spec.task != "regression":
        what = type(datamodule).__name__ if not datamodule.takes_prior else f"a {datamodule.spec.task} task"
        raise InputError(f"model.prior={name}: {what} takes no prior yet; leave it out")
    train, values = datamodule.record("train"), data_hash(datamodule)
    text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True) + code_hash(config)
    with stage(f"prior, {name}"):
        fit = Fit(name, f"prior, {name}", config, datamodule, cache_file("fitted", name, values, text))
        prior = Prior(name, fit.predictor(), _means(train.target))
        path = cache_file("priors", name, values, text, str(FOLDS))
        make = partial(_out_of_fold, datamodule, train, config)
        table = kept(path, read_arrays, make, lambda at, made: write_arrays(at, **made))["prediction"]
    inner = prior.centered(table)
    every = prior.predict(datamodule.record_whole)
    every[datamodule.split.index("train")] = inner
    datamodule.use_prior(prior, every)
    return prior, prior.residual_spec(datamodule.spec, train.target, inner)


def _means(target: np.ndarray) -> np.ndarray:
    return np.nanmean(np.asarray(target, dtype=np.float64), axis=0)


def _out_of_fold(datamodule: RecordDataModule, train: Any, config: Any) -> dict[str, np.ndarray]:
    folds = _folds(datamodule, train)
    make = partial(instantiate, config)
    return {"prediction": out_of_fold(make, train, datamodule.record("val"), datamodule.graph, folds)}


def _folds(datamodule: RecordDataModule, train: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Folds of the training part as the split's method makes them; at random where the split came from a file."""
    split = datamodule.split
    method = split.method if split.n_folds else "random"
    for fold in range(FOLDS):
        keys = {"method": method, "n_folds": FOLDS, "fold": fold, "seed": split.seed + 1}
        part = datamodule.assign_folds(train, keys).part
        yield np.isin(part, ("train", "val")), part == "test"
