"""The run that the drill spoils: the simulated cell at small size, composed as a user's."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from torchcell.training import build as assemble
from torchcell.training import checkpoint
from torchcell.training.entry import conf_dir

SMALL = (
    "data.record.n_genes=120",
    "data.record.n_sets=500",
    "data.record.n_queries=16",
    "data.record.n_arrays=60",
    "data.batch_size=128",
    "model.encoder.dim=16",
    "model.readout.heads=1",
    "model.readout.dropout=0.2",
    "trainer.max_epochs=2",
    "trainer.warmup_steps=2",
    "evaluation.n_boot=20",
    "baselines.gradient_boosting=null",
    "baselines.embedding_sum_mlp=null",
    "baselines.low_rank_als=null",
)
"""Seconds of work; dropout, warm-up and three batches an epoch, so that a wrong draw or step shows."""


def config(folder: Path, *overrides: str) -> DictConfig:
    """The small run below ``folder``."""
    return composed("config", *SMALL, f"paths.runs={folder}", *overrides)


def composed(name: str, *overrides: str) -> DictConfig:
    """The config of a verb."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(name, list(overrides))


def checkpoint_of(folder: Path) -> Path:
    """A checkpoint of the small run's model before any training."""
    cfg = config(folder)
    data = assemble.datamodule(cfg)
    model = checkpoint.built(cfg.model, data.spec)
    about = {checkpoint.KEY: checkpoint.describe(data.spec, cfg)}
    path = folder / "good.ckpt"
    checkpoint.AtomicCheckpointIO().save_checkpoint({"state_dict": model.state_dict(), "epoch": 0, **about}, path)
    return path
