"""What each of several processes does with every model of the tree, for test_every_model_in_processes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning
import numpy as np
import torch
from hydra.utils import instantiate
from model_contract import small_run
from omegaconf import DictConfig
from small_runs import MODELS, built, composed

from torchcell.core.batch import BatchOrder, PackedLoader
from torchcell.evaluation.evaluate import evaluate
from torchcell.knowledge_graph.datamodule import RANKING
from torchcell.training import build as assemble
from torchcell.training.distributed.placement import OneDeviceANode
from torchcell.training.distributed.processes import DistributedContext
from torchcell.training.predict import predict_part


def every_model(cfg: DictConfig, process: DistributedContext) -> dict[str, dict[str, Any]]:
    """Train each model for two epochs in all processes; score the test part in all, and again in one alone."""
    return {name: _one(name, cfg.trainer, process) for name in cfg.models}


def _one(name: str, trainer_cfg: DictConfig, process: DistributedContext) -> dict[str, Any]:
    cfg, started = composed(*(MODELS.get(name) or small_run(name))), time.perf_counter()
    lightning.seed_everything(0, workers=True, verbose=False)
    data = assemble.datamodule(cfg)
    model = built(cfg, data)
    callbacks = [instantiate(cfg.callbacks.curriculum)] if "curriculum" in cfg.callbacks else []
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        num_nodes=process.world,
        strategy=instantiate(trainer_cfg.strategy),
        plugins=[OneDeviceANode(process.rank, process.world)],
        callbacks=callbacks,
        max_epochs=2,
        limit_train_batches=4,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, data)
    # Buffers too: a checkpoint has the first process's, and each goes by its own.
    weights = torch.cat([value.detach().flatten().double() for value in model.state_dict().values()])
    together = predict_part(trainer, model, data, "test")
    order = BatchOrder(torch.from_numpy(data.split.index("test")), shuffle=False)
    with torch.no_grad():
        batches = PackedLoader(data.packed, order, data.eval_batch_size)
        alone = torch.cat([model.tabulate(model.eval()(batch)) for batch in batches]).float().numpy()
    scores = [_scores(data, each) for each in (together, alone)]
    asked = data.evaluation_inputs("test")
    return {
        "samples": len(together),
        "expected": len(data.split.index("test")),
        "difference": float(np.abs(together - alone).max() / np.abs(alone).max()),
        "metrics": max(abs(scores[0][key] - scores[1][key]) for key in scores[0]) if scores[0] else None,
        "n_metrics": len(scores[0]),
        "weights": process.gather(float(weights.sum()), float(weights.square().sum())).tolist(),
        "steps": trainer.global_step,
        "asked": sorted(asked),
        "seconds": time.perf_counter() - started,
    }


def _scores(data: Any, prediction: np.ndarray) -> Mapping[str, float]:
    """Metrics of the part by name, where they are defined."""
    predictions = {"": {"model": prediction}}
    if any(what.startswith(RANKING) for what in data.evaluation_inputs("test")):
        return {}
    found = evaluate(data.results("test", predictions, "model", None), n_boot=2).table
    values = found[found.system == "model"].set_index("metric")["value"].dropna()
    return {str(name): float(value) for name, value in values.items()}
