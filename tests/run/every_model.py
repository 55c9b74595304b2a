"""What each of several processes does with every model of the tree, for test_every_model_in_processes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from torchcell.datamodules.batch import BatchOrder, PackedLoader
from torchcell.datamodules.links import RANKING
from torchcell.metrics.evaluate import evaluate
from torchcell.run import assemble
from torchcell.run.entry import conf_dir
from torchcell.run.placement import OneDeviceANode
from torchcell.run.processes import Process
from torchcell.run.scoring import predict_part

SCREEN = (
    "data.record.n_genes=120", "data.record.n_sets=301", "data.record.n_queries=16", "data.record.n_arrays=60",
    "data.batch_size=32", "data.eval_batch_size=8",
)  # fmt: skip
RESPONSE = (
    "+experiment=simulated_chemoe", "data.record.n_drugs=24", "data.record.doses=[1.0,10.0]",
    "data.record.n_genes=60", "data.cell_line=[A375,PC3]", "data.batch_size=16",
    "data.eval_batch_size=4", "model.inputs.width=16", "model.inputs.hidden=16", "data.record.n_replicates=1",
)  # fmt: skip
CELLS = (
    "+experiment=simulated_perturbseq", "data.record.n_genes=60", "data.record.n_regulators=16",
    "data.record.n_doubles=5", "data.record.cells_per_condition=6", "data.set_size=2", "data.batch_size=8",
    "+data.eval_batch_size=1",
)  # fmt: skip
SETS = ("model.dim=16", "model.heads=1", "model.layers=1")
GNN = ("model=perturbed_cell_gnn", "model.dim=16", "model.attention_heads=1", *SCREEN)
GRAPHS = (
    "data.molecules._target_=torchcell.data.molecule_graphs.MoleculeGraphs",
    "~data.molecules.bits",
    "~data.molecules.radius",
)
NARROW = ("model.gene_width=16", "model.expert_hidden=[16,8]")
MODELS: dict[str, tuple[str, ...]] = {
    "dango": (*SCREEN, "model.dim=16", "model.heads=1"),
    "gnn_index": (*GNN, "model.heads=[local]"),
    "gnn_lazy": GNN,
    "gnn_khop": (*GNN, "data.hops=1"),
    "cell_graph_transformer": ("model=cell_graph_transformer", *SCREEN, *SETS, "model.ties={physical: [[0, 0]]}"),
    "hgt_embedder": (
        "+experiment=simulated_hgt", "data.record.n_genes=60", "data.record.n_compounds=40",
        "data.record.n_diseases=30", "data.record.n_communities=5", "model.embedding=16", "model.hidden=16",
        "model.heads=1", "model.walk_pairs=1000", "model.edge_sample_size=50", "data.batch_size=16",
    ),
    # With one expert a sample and few samples a batch, some expert is idle in most steps.
    "chemoe": (*RESPONSE, *NARROW, "model.experts=6", "model.top_k=1", "model.balance_rate=0.01",
               "data.batch_size=2"),
    "chemoe_graph": (*RESPONSE, *GRAPHS, "model=chemoe_graph", *NARROW, "model.atom_heads=1"),
    "response_mlp": (*RESPONSE, "model=response_mlp", "model.gene_width=16", "model.hidden=[16,8]"),
    "response_product": (*RESPONSE, "model=response_product", "model.gene_width=16", "model.hidden=[16,8]"),
    "additive_latent": (*RESPONSE, "model=additive_latent", "model.hidden=16"),
    "latent_shift": (*RESPONSE, "model=latent_shift", "model.hidden=16", "model.latent=8"),
    "gene_set_transformer": (*CELLS, *SETS),
    "gene_set_transformer_curriculum": (
        *CELLS, *SETS, "callbacks=curriculum",
        "callbacks.curriculum.phases=[{epoch: 0, genes: 0.2}, {epoch: 1, genes: null}]",
    ),
}  # fmt: skip
"""Overrides of every model's small run; all but the last name in ``conf/model`` or experiments of the model."""


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(overrides))


def every_model(cfg: DictConfig, process: Process) -> dict[str, dict[str, Any]]:
    """Train each model for two epochs in all processes; score the test part in all, and again in one alone."""
    return {name: _one(name, cfg.trainer, process) for name in cfg.models}


def _one(name: str, trainer_cfg: DictConfig, process: Process) -> dict[str, Any]:
    cfg, started = composed(*MODELS[name], "baselines=none"), time.perf_counter()
    lightning.seed_everything(0, workers=True, verbose=False)
    data = assemble.datamodule(cfg)
    model = instantiate(cfg.model, _partial_=True)(spec=data.spec)
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
    asked = data.asked("test")
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
    if any(what.startswith(RANKING) for what in data.asked("test")):
        return {}
    found = evaluate(data.results("test", predictions, "model", None), n_boot=2).table
    values = found[found.system == "model"].set_index("metric")["value"].dropna()
    return {str(name): float(value) for name, value in values.items()}
