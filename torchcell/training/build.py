"""Parts of a run from its config: datamodule, trainer, and what is told about them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict

from torchcell.core.datamodule import RecordDataModule
from torchcell.core.model import Model
from torchcell.core.spec import Spec
from torchcell.io.console import Console
from torchcell.io.errors import InputError, some
from torchcell.io.file_facts import verifying
from torchcell.io.paths import looking_in
from torchcell.io.progress import stage
from torchcell.training.checkpoint import AtomicCheckpointIO, Checkpoint
from torchcell.training.distributed.placement import OneDeviceANode, one_device_a_node
from torchcell.training.distributed.processes import DistributedContext
from torchcell.training.distributed.slurm import Requeue, Signals
from torchcell.training.loggers import CheckpointAfterHistory, History, StepLog
from torchcell.training.pruning import Pruning
from torchcell.training.run_folder import RunFolder
from torchcell.training.study import TrialAddress

# What Lightning says of GPUs, of its own products and of its logging interval tells the user nothing.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
for said in (
    "srun. command is available",
    "treespec",
    "number of training batches",
    "Checkpoint directory",
    "broadcast_buffers",
    "sync_dist",
):
    warnings.filterwarnings("ignore", message=f".*{said}.*")

PRECISIONS = {
    **dict.fromkeys(("32-true", "32"), None),
    **dict.fromkeys(("bf16-mixed", "bf16"), torch.bfloat16),
    **dict.fromkeys(("16-mixed", "16"), torch.float16),
}
"""Of the trainer, with the type that autocast computes in."""

NOT_TRAINER = ("warmup_steps", "early_stopping", "lost_after_s", "wait_s")
"""Keys of the trainer's config that belong to the model, the callbacks and the start of the processes."""

NOT_DATA = ("verify",)
"""Keys of the data's config that say how they are read, not what they are."""


@stage("loading the data")
def datamodule(cfg: DictConfig) -> RecordDataModule:
    """Graph, record and split of ``cfg``, loaded, checked and packed."""
    data = cfg.data.copy()
    with open_dict(data):
        verify = data.pop("verify", "cached")
    with verifying(verify), looking_in(OmegaConf.select(cfg, "paths.origin")):
        graph = instantiate(cfg.graph) or None
        split = OmegaConf.to_container(cfg.split, resolve=True)
        return instantiate(data, _partial_=True)(graph=graph, split=split, seed=cfg.seed)


SIMULATED = {"n_sets": 10**8, "n_edges": 10**9, "scale": 100}
"""Largest sizes of a simulation in a checkpoint's config; of all others a million."""


def datamodule_of(saved: Checkpoint, trust: Sequence[str] = (), data_changed: str = "error") -> RecordDataModule:
    """The data that a checkpoint was trained on, rebuilt from the config in it.

    Args:
        saved: The checkpoint.
        trust: Further packages whose classes the config may name.
        data_changed: ``allow`` data whose values changed since; else ``error``.

    Raises:
        InputError: A call that is not on the list; data that are other than those it was trained on.
    """
    for key in ("data", "graph"):
        saved.checked(key, trust)
    refuse_endless({key: OmegaConf.select(saved.config, key) for key in ("data", "graph")}, saved.path)
    data = datamodule(saved.config)
    saved.check_data(data.spec, data_changed)
    prior = saved.prior(trust)
    if prior is not None:
        data.use_prior(prior, data.predicted_by(prior))
    return data


def refuse_endless(parts: Mapping[str, Any], path: Path) -> None:
    """Raise where a simulation in a config that may be a stranger's is too large to end.

    Args:
        parts: Parts of the config of a checkpoint, by key.
        path: Of the checkpoint, for the message.

    Raises:
        InputError: All such sizes.
    """
    found = [
        f"{key}.{name}={value:g}"
        for part, config in parts.items()
        for key, node in _nodes(config, part)
        if ".simulate" in str(node.get("_target_", ""))
        for name, value in node.items()
        if type(value) in (int, float) and name != "seed" and not abs(value) <= SIMULATED.get(name, 10**6)
    ]
    if found:
        raise InputError(f"{path}: simulations that would not end: {some(found)}; data of that size come from a file")


def _nodes(node: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping within a config, with its name."""
    plain: Any = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    if isinstance(plain, dict):
        yield name, plain
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in inner:
        yield from _nodes(value, f"{name}.{key!s}")


def trainer(
    cfg: DictConfig, folder: RunFolder, logs: list[Logger], process: DistributedContext, signals: Signals | None = None
) -> lightning.Trainer:
    """One process's trainer, with the run's checkpoints, loggers and callbacks; with ``signals`` it saves when told.

    Raises:
        InputError: A precision that no model is tested in; no epoch at all.
    """
    if str(cfg.trainer.precision) not in PRECISIONS:
        raise InputError(f"trainer.precision={cfg.trainer.precision}: choose one of {list(PRECISIONS)}")
    if cfg.trainer.max_epochs == 0:
        raise InputError("trainer.max_epochs=0 trains nothing; set it to 1 or more")
    history = next(log for log in logs if isinstance(log, History))
    best = CheckpointAfterHistory(
        history,
        dirpath=folder.path / "checkpoints",
        filename="best",
        monitor="val/score",
        mode="max",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    # Of its own: `save_last` writes only when the best improves, and a requeued run would lose all epochs since.
    last = ModelCheckpoint(
        dirpath=folder.path / "checkpoints",
        filename="last",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    config = DictConfig({key: value for key, value in cfg.trainer.items() if key not in NOT_TRAINER})
    config.update(one_device_a_node(process.device, process.world))
    callbacks = [instantiate(callback) for callback in cfg.callbacks.values() if callback is not None]
    if cfg.logger.get("every_n_steps") is not None:  # a config of an earlier version does not have the key
        callbacks.append(StepLog(cfg.logger.every_n_steps))
    if (address := TrialAddress.of_environment()) is not None:
        callbacks.append(Pruning(address.open, history))
    if signals is not None:
        callbacks.append(Requeue(signals, folder.last))  # the last, for it ends the step that others log
    return instantiate(config, _partial_=True)(
        logger=logs,
        callbacks=[*callbacks, best, last],
        plugins=[AtomicCheckpointIO(), OneDeviceANode(process.rank, process.world)],
        use_distributed_sampler=False,  # the datamodule deals the batches to the processes
        num_sanity_val_steps=0,
        enable_model_summary=False,
        default_root_dir=folder.path,
    )


def another_split(start: Spec, at_hand: Spec) -> bool:
    """Whether weights were trained on another split of the same data; data without a fingerprint are taken to be."""
    if start.split_hash == at_hand.split_hash:
        return False
    prints = start.data_fingerprint, at_hand.data_fingerprint
    return (not all(prints) or prints[0] == prints[1]) and start.outputs == at_hand.outputs


def best_score(trainer: lightning.Trainer) -> float:
    """The best validation score of the run so far."""
    (best,) = (
        callback
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.monitor is not None
    )
    return float("nan") if best.best_model_score is None else float(best.best_model_score)


def pruned_after(trainer: lightning.Trainer) -> int | None:
    """The epoch after which a search stopped its trial; None where the run ended by itself."""
    epochs = [callback.pruned for callback in trainer.callbacks if isinstance(callback, Pruning)]  # type: ignore[attr-defined]
    return epochs[0] if epochs else None


@rank_zero_only
def announce(cfg: DictConfig, folder: RunFolder, data: RecordDataModule, model: Model) -> None:
    """Print what is about to run: data, split, graph, model, folder."""
    counts = data.split.counts()
    parts = ", ".join(f"{part} {n:,}" for part, n in counts.items() if n)
    lines = [
        f"{cfg.name}  seed {cfg.seed}  ->  {folder.path}",
        f"data    {len(data.sample_id):,} samples, outputs {', '.join(data.spec.outputs[:4])}"
        f"  ({data.spec.data_fingerprint[:8]})",
        f"split   {data.split.method}, fold {cfg.split.fold} of {cfg.split.n_folds}: {parts}  ({data.split.hash[:8]})",
    ]
    if data.graph is not None:
        lines.append(f"graph   {data.graph.extra_repr()}")
    if data.dropped:
        lines.append("dropped " + "; ".join(f"{what}: {n:,}" for what, n in data.dropped.items()))
    lines += [f"note    {note}" for note in (*data.target_notes, *data.notes())]
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    lines.append(f"model   {type(model).__name__}, {n_parameters:,} parameters")
    lines.append(f"score   val/score, which chooses the best epoch, is {' and '.join(model.watched)} on validation")
    # names are the user's own, and may look like markup
    Console().print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)


def report_info(
    cfg: DictConfig, environment: dict[str, Any], data: RecordDataModule, facts: dict[str, Any]
) -> dict[str, Any]:
    """What the report's head tells of the run."""
    return {
        "name": cfg.name,
        "seed": cfg.seed,
        "split": f"{data.split.method}, fold {cfg.split.fold} of {cfg.split.n_folds}",
        "split_hash": data.split.hash,
        "split_counts": data.split.counts(),
        "group": data.split.key,
        "dropped": data.dropped,
        "contents": getattr(data.record_whole, "contents", {}),
        "prior": OmegaConf.select(cfg, "model.prior"),
        "notes": [*data.target_notes, *data.notes()],
        "git_commit": environment["git_commit"],
        "git_dirty": environment["git_dirty"],
        "versions": environment["versions"],
        **facts,
    }
