"""Each benchmark starts with each model of its task: a training step and a validation batch, on its own data."""

from __future__ import annotations

import functools

import pytest
from hydra.utils import get_object
from model_contract import trained
from omegaconf import DictConfig, OmegaConf
from small_runs import composed
from test_config import PAIRS

from torchcell.core.datamodule import RecordDataModule
from torchcell.drug_response.datamodule import ResponseDataModule
from torchcell.training import build

NOT_YET = {
    "stack_network": (ResponseDataModule,),  # whose stack gives no columns yet
}


def starts(benchmark: str, model: str) -> bool:
    return get_object(composed(f"benchmark={benchmark}").data._target_) not in NOT_YET.get(model, ())


STARTED = [pair for pair in PAIRS if starts(*pair)]
SIMULATED = [pair for pair in STARTED if pair[0].startswith("simulated_")]
REAL = [pair for pair in STARTED if pair not in SIMULATED and pair[0] != "cells"]  # that one is for files of a user


@functools.lru_cache(maxsize=1)
def data_of(text: str) -> RecordDataModule:
    """The data of a config; the next pair of the same benchmark takes them too."""
    return build.datamodule(OmegaConf.create(text))


def start(benchmark: str, model: str) -> None:
    cfg = composed(f"benchmark={benchmark}", f"model={model}")
    OmegaConf.resolve(cfg)
    OmegaConf.set_struct(cfg, False)
    # What the model's file or its refusal says that the data need.
    if OmegaConf.select(cfg, "model.inputs.molecule.encoder") == "graph":
        cfg.data.molecules = {"_target_": "torchcell.drug_response.molecules.MoleculeGraphs"}
    if OmegaConf.select(cfg, "model.inputs.unknown") is False:
        cfg.data.missing_molecules = "drop"
    trained(cfg, with_own_batches(cfg))


def with_own_batches(cfg: DictConfig) -> RecordDataModule:
    """The benchmark's data in batches of the sizes that were tuned for the model."""
    shared = OmegaConf.masked_copy(cfg, ["data", "graph", "split", "seed"])
    sizes = {key: shared.data.pop(key) for key in ("batch_size", "eval_batch_size") if key in shared.data}
    data = data_of(OmegaConf.to_yaml(shared))
    for key, size in sizes.items():
        if size is not None:
            setattr(data, key, size)
    return data


@pytest.mark.long
@pytest.mark.parametrize(("benchmark", "model"), SIMULATED, ids=map(" ".join, SIMULATED))
def test_a_simulated_benchmark_starts_with_a_model_of_its_task(benchmark, model):
    start(benchmark, model)


@pytest.mark.long
@pytest.mark.mirror
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("benchmark", "model"), REAL, ids=map(" ".join, REAL))
def test_a_real_benchmark_starts_with_a_model_of_its_task(mirror, benchmark, model):
    start(benchmark, model)
