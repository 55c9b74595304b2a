"""``+model.prior=NAME``: fits a baseline as the prior of a model, and puts its predictions into the batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from torchcell.core.datamodule import RecordDataModule
from torchcell.core.prior import FOLDS, USES, Prior, out_of_fold
from torchcell.core.spec import Spec
from torchcell.evaluation.registry import metric_set
from torchcell.io.cache import kept, read_arrays, write_arrays
from torchcell.io.errors import InputError
from torchcell.io.progress import stage
from torchcell.training.baselines import Fit, cache_file, code_hash, data_hash


def fit_prior(datamodule: RecordDataModule, cfg: DictConfig) -> tuple[Prior | None, Spec]:
    """Fit ``model.prior`` where the config names one, and put its predictions into the batches.

    Where the network learns the residual, predictions for the training part are out of fold; else the prior is fitted
    on all of that part. Both are cached.

    Returns:
        The prior, and the spec for the network.

    Raises:
        InputError: No such baseline or use; data without priors; a binary task.
    """
    name, use = (OmegaConf.select(cfg, f"model.{key}") for key in ("prior", "prior_use"))
    if use not in (None, *USES):
        raise InputError(f"model.prior_use={use}: choose one of {', '.join(USES)}")
    if name is None:
        return None, datamodule.spec
    config = (cfg.get("baselines") or {}).get(name)
    if config is None:
        known = [key for key, one in (cfg.get("baselines") or {}).items() if one is not None]
        raise InputError(
            f"model.prior={name}: the run has no baseline of this name; it has {known}; name one of them, or set "
            "model.prior=null for the network alone"
        )
    if not datamodule.takes_prior or metric_set(datamodule.spec.task).labels:
        data = type(datamodule).__name__ if not datamodule.takes_prior else f"a {datamodule.spec.task} task"
        raise InputError(f"model.prior={name}: {data} takes no prior yet; leave it out")
    train, values = datamodule.record("train"), data_hash(datamodule)
    text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True) + code_hash(config)
    with stage(f"prior, {name}"):
        fit = Fit(name, f"prior, {name}", config, datamodule, cache_file("fitted", name, values, text))
        prior = Prior(name, fit.predictor())
        prediction = datamodule.predicted_by(prior)
        spec = datamodule.spec
        if use != "average":
            path = cache_file("priors", name, values, text, str(FOLDS))
            make = partial(_out_of_fold, datamodule, train, config)
            inner = kept(path, read_arrays, make, lambda at, made: write_arrays(at, **made))["prediction"]
            prediction[datamodule.split.index("train")] = torch.from_numpy(inner)
            spec = datamodule.residual_spec(train, inner)
    datamodule.use_prior(prior, prediction)
    return prior, spec


def _out_of_fold(datamodule: RecordDataModule, train: Any, config: Any) -> dict[str, np.ndarray]:
    folds = _folds(datamodule, train)
    make = partial(instantiate, config)
    return {"prediction": out_of_fold(make, train, datamodule.record("val"), datamodule.graph, folds)}


def _folds(datamodule: RecordDataModule, train: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Folds of the training part by the method of the split; at random where the split came from a file."""
    split = datamodule.split
    method = split.method if split.n_folds else "random"
    for fold in range(FOLDS):
        keys = {"method": method, "n_folds": FOLDS, "fold": fold, "seed": split.seed + 1}
        part = datamodule.assign_folds(train, keys).part
        yield np.isin(part, ("train", "val")), part == "test"
