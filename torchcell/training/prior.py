"""``+model.prior=NAME``: fits a baseline as the prior of a model, and gives its predictions to the data."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from torchcell.core.datamodule import RecordDataModule
from torchcell.core.predictor import Predictor
from torchcell.core.prior import FOLDS, USES, Prior, out_of_fold
from torchcell.core.spec import Spec
from torchcell.evaluation.registry import metric_set
from torchcell.io.cache import kept, read_arrays, write_arrays
from torchcell.io.errors import InputError
from torchcell.io.paths import data_home
from torchcell.io.progress import stage
from torchcell.training.baselines import Fit, code_hash, data_hash, short_hash


def fit_prior(datamodule: RecordDataModule, cfg: DictConfig) -> tuple[Prior | None, Spec]:
    """Fit ``model.prior`` where the config names one, and let the datamodule's batches hold its predictions.

    Where the network learns what it leaves, its predictions of the training part are out of fold; else it is fitted on
    all of that part. Both are cached.

    Returns:
        The prior, and the spec that the network is built with.

    Raises:
        InputError: No such baseline or use; data whose batches take no prior; a binary task.
    """
    name, use = (OmegaConf.select(cfg, f"model.{key}") for key in ("prior", "prior_use"))
    if name is None:
        if use is not None:
            raise InputError(f"model.prior_use={use} needs a prior; set model.prior to the name of a baseline")
        return None, datamodule.spec
    if use not in (None, *USES):
        raise InputError(f"model.prior_use={use}: choose one of {', '.join(USES)}")
    config = (cfg.get("baselines") or {}).get(name)
    if config is None:
        known = [key for key, one in (cfg.get("baselines") or {}).items() if one is not None]
        raise InputError(f"model.prior={name}: the run has no baseline of this name; it has {known}")
    if not datamodule.takes_prior or metric_set(datamodule.spec.task).labels:
        what = type(datamodule).__name__ if not datamodule.takes_prior else f"a {datamodule.spec.task} task"
        raise InputError(f"model.prior={name}: {what} takes no prior yet; leave it out")
    train, values = datamodule.record("train"), data_hash(datamodule)
    text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True) + code_hash(config)
    with stage(f"prior, {name}"):
        file = data_home() / "fitted" / f"{name}-{short_hash(values, text)}.npz"
        prior = Prior(name, Fit(name, f"prior, {name}", config, datamodule, file).predictor())
        every = prior.predict(datamodule.record_whole)
        spec = datamodule.spec
        if use != "average":
            path = data_home() / "priors" / f"{name}-{short_hash(values, text, str(FOLDS))}.npz"
            make = partial(_out_of_fold, datamodule, train, config)
            inner = prior.predictor.out_of_fold()
            if inner is None:
                inner = kept(path, read_arrays, make, lambda at, made: write_arrays(at, **made))["prediction"]
            every[datamodule.split.index("train")] = torch.from_numpy(inner)
            spec = datamodule.residual_spec(train, inner)
    datamodule.use_prior(prior, every)
    return prior, spec


def _out_of_fold(datamodule: RecordDataModule, train: Any, config: Any) -> dict[str, np.ndarray]:
    folds = datamodule.inner_folds(train)

    def make() -> Predictor:
        unfitted: Predictor = instantiate(config)
        return unfitted.with_folds(datamodule.inner_folds)

    return {"prediction": out_of_fold(make, train, datamodule.record("val"), datamodule.graph, folds)}
