"""``model.prior=NAME``: fits a baseline as the prior of a model, and puts its predictions into the batches."""

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
            inner = prior.predictor.out_of_fold()
            if inner is None:
                inner = kept(path, read_arrays, make, lambda at, made: write_arrays(at, **made))["prediction"]
            prediction[datamodule.split.index("train")] = torch.from_numpy(inner)
            spec = datamodule.residual_spec(train, inner)
    datamodule.use_prior(prior, prediction)
    return prior, spec


def _out_of_fold(datamodule: RecordDataModule, train: Any, config: Any) -> dict[str, np.ndarray]:
    folds = datamodule.inner_folds(train)

    def make() -> Predictor:
        unfitted: Predictor = instantiate(config)
        return unfitted.with_folds(datamodule.inner_folds)

    return {"prediction": out_of_fold(make, train, datamodule.record("val"), datamodule.graph, folds)}
