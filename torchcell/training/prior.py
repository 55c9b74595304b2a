"""``model.prior=NAME``: fits a baseline as the prior of a model, and puts its predictions into the batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
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
from torchcell.training.standard_baselines import prior_config


def fit_prior(datamodule: RecordDataModule, cfg: DictConfig) -> tuple[Prior | None, Spec]:
    """Fit ``model.prior`` where the config names one, and put its predictions into the batches.

    Where the network learns the residual, predictions for the training part are out of fold; else the prior is fitted
    on all of that part. Both are cached.

    Returns:
        The prior, and the spec for the network.

    Raises:
        InputError: No such baseline or use; data without priors; ``model.residual`` on a prior without columns.
    """
    name, use = (OmegaConf.select(cfg, f"model.{key}") for key in ("prior", "prior_use"))
    if use not in (None, *USES):
        raise InputError(f"model.prior_use={use}: choose one of {', '.join(USES)}")
    if name is None:
        if OmegaConf.select(cfg, "model.residual") is not None:
            raise InputError("model.residual needs a prior, whose columns it reads: model.prior=stack")
        return None, datamodule.spec
    reads_columns = OmegaConf.select(cfg, "model.residual") is not None
    if reads_columns and use == "average":
        raise InputError("model.residual needs model.prior_use=residual: averaged, the network never meets the prior")
    config = prior_config(name, cfg.get("baselines") or {}, datamodule.TASK.package)
    if not datamodule.takes_prior:
        raise InputError(
            f"model.prior={name}: {type(datamodule).__name__} puts no prior into its batches (takes_prior is False), "
            "as the datamodules of torchcell's own tasks do; set model.prior=null"
        )
    values = data_hash(datamodule)
    text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True) + code_hash(config)
    with stage(f"prior, {name}"):
        fit = Fit(name, f"prior, {name}", config, datamodule, cache_file("fitted", name, values, text))
        prior = Prior(name, fit.predictor(), reads_columns)
        prediction = datamodule.predicted_by(prior)
        spec, n_outputs = datamodule.spec, len(datamodule.spec.outputs)
        index = datamodule.split.index("train")
        if use != "average":
            at = datamodule.learned_from()
            inner = prior.predictor.out_of_fold() if len(at) == len(index) else None
            if inner is None:
                path = cache_file("priors", name, values, text, str(FOLDS))
                inner = _kept(path, partial(_out_of_fold, datamodule, config, len(prediction)))[at]
            prediction[torch.from_numpy(at), :n_outputs] = torch.from_numpy(inner)
            spec = datamodule.residual_spec(datamodule.record("train"), prediction[index, :n_outputs].numpy())
            if reads_columns:
                path, n_columns = cache_file("columns", name, values, text, str(FOLDS)), prediction.shape[1] - n_outputs
                shape = len(prediction), n_columns
                columns = _kept(path, partial(_columns_out_of_fold, datamodule, prior.predictor, shape))
                prediction[torch.from_numpy(at), n_outputs:] = torch.from_numpy(columns[at])
                spec = replace(spec, n_columns=n_columns)
        if metric_set(datamodule.spec.task).labels:
            part = "val" if use == "average" else "train"
            said = prediction[datamodule.split.index(part), :n_outputs].numpy()
            prior = prior.calibrated(said, datamodule.calibration_labels(part))
            assert prior.calibration is not None
            prediction[:, :n_outputs] = torch.from_numpy(prior.calibration(prediction[:, :n_outputs].numpy()))
    datamodule.use_prior(prior, prediction)
    return prior, spec


def _kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array of the cache; it is made where it is not there."""
    arrays = kept(path, read_arrays, lambda: {"values": make()}, lambda at, made: write_arrays(at, **made))
    return np.asarray(arrays["values"])


def _columns_out_of_fold(datamodule: RecordDataModule, predictor: Predictor, shape: tuple[int, int]) -> np.ndarray:
    found, parts = np.full(shape, np.nan, dtype=np.float32), list(datamodule.inner_parts())
    made = predictor.columns_out_of_fold(parts, datamodule.record("val"), datamodule.graph)
    for part, columns in zip(parts, made, strict=True):
        found[part.at] = columns
    return found


def _out_of_fold(datamodule: RecordDataModule, config: Any, n: int) -> np.ndarray:
    def make() -> Predictor:
        unfitted: Predictor = instantiate(config)
        return unfitted.with_folds(datamodule.inner_folds)

    shape = n, len(datamodule.spec.outputs)
    return out_of_fold(make, datamodule.inner_parts(), datamodule.record("val"), datamodule.graph, shape)
