"""Comparators: other trained models that are scored beside a model on the same samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from torchcell.core.datamodule import RecordDataModule
from torchcell.evaluation.checks import converged
from torchcell.evaluation.verdict import PairwiseComparison
from torchcell.io.errors import InputError, some
from torchcell.training import build, checkpoint
from torchcell.training.checkpoint import Checkpoint
from torchcell.training.data_changes import other_values
from torchcell.training.predict import predict_inputs, predict_part

DATA = ("data", "graph", "split", "seed")
"""Keys of a config that define the data."""


@dataclass(frozen=True, eq=False)
class Comparator:
    """A trained model and its predictions for a part.

    Attributes:
        path: Its checkpoint.
        predictions: What is kept of its predictions, by record as in ``RecordDataModule.evaluation_inputs``.
        converged: False if its validation score still rose when training stopped; None if its run folder is missing.
        data_changed: Whether the data differ from those that it was trained on.
    """

    path: Path
    predictions: dict[str, np.ndarray]
    converged: bool | None
    data_changed: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """Its entries in ``metrics.json`` besides the comparison."""
        changed = {"data_changed": True} if self.data_changed else {}
        return {"ckpt": str(self.path), "converged": self.converged, **changed}

    def noted(self, comparison: PairwiseComparison) -> PairwiseComparison:
        """The comparison with a note if the comparator had not converged, or its data have changed."""
        if self.data_changed:
            return comparison.with_note("its data changed after its training")
        return comparison.with_note("it was still improving when it stopped") if self.converged is False else comparison


def opened(paths: str | Sequence[str], saved: Checkpoint) -> list[Checkpoint]:
    """Load the comparators of ``saved``.

    Args:
        paths: Of their checkpoints; one alone needs no list.
        saved: The checkpoint that is scored.

    Raises:
        InputError: A missing checkpoint; or comparators of another split or with other outputs, all in one error.
    """
    comparators = [checkpoint.load(path) for path in ([paths] if isinstance(paths, str) else paths)]
    wrong = [f"{other.path} {why}" for other in comparators if (why := _unlike(other, saved))]
    if wrong:
        raise InputError(
            f"comparators that can't be scored beside {saved.path}: {'; '.join(wrong)}. Train them on its split and "
            "data"
        )
    return comparators


def named(comparators: Sequence[Checkpoint], saved: Checkpoint, taken: Collection[str]) -> dict[str, Checkpoint]:
    """The comparators by the name of their class, with the run where several have the same class.

    Args:
        comparators: Loaded checkpoints.
        saved: The model under test.
        taken: Names of its baselines.

    Raises:
        InputError: A checkpoint that is there twice, or is the model itself.
    """
    paths = [one.path.resolve() for one in (saved, *comparators)]
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise InputError(f"checkpoints that stand twice in ckpt and comparators: {some(twice)}; name each once")
    classes = [_class(one) for one in (saved, *comparators)]
    by_name: dict[str, Checkpoint] = {}
    for one in comparators:
        name = _class(one)
        if classes.count(name) > 1 or name in taken:
            run, stem = one.path.resolve().parents[1].name, one.path.stem
            name = f"{name} {run}" if stem == "best" else f"{name} {run} {stem}"
        if name in by_name:
            name = str(one.path).replace("/", "_")  # a layer of an h5ad takes no slash
        by_name[name] = one
    return by_name


def predicted(
    trainer: lightning.Trainer,
    comparator: Checkpoint,
    saved: Checkpoint,
    datamodule: RecordDataModule,
    part: str,
    batch_size: int | None,
    trust: Sequence[str] = (),
    data_changed: str = "error",
) -> Comparator:
    """Predict the samples of ``part`` with a comparator, through its own datamodule.

    Args:
        trainer: Trainer of one process.
        comparator: Loaded checkpoint.
        saved: The model under test.
        datamodule: That of ``saved``; used for the comparator too where both configs define the same data.
        part: Part of the split.
        batch_size: Samples a batch; none: as in the comparator's run.
        trust: Further packages whose classes the checkpoint may name.
        data_changed: ``allow`` data that changed since the comparator's training, else ``error``.

    Raises:
        InputError: Data that changed, or a part with other samples or measured values.
    """
    model, data = comparator.model(trust), datamodule
    unlike = any(OmegaConf.select(comparator.config, key) != OmegaConf.select(saved.config, key) for key in DATA)
    if unlike or comparator.prior_plain is not None:  # its batches have the predictions of its prior
        data = build.datamodule_of(comparator, trust, data_changed)
        data.eval_batch_size = batch_size or data.eval_batch_size
        _check_same_part(comparator, data, datamodule, part)
    else:
        comparator.check_data(data.spec, data_changed)
    prediction = predict_part(trainer, model, data, part)
    predictions = predict_inputs(model, data, part, prediction, trainer.strategy.root_device)
    history = comparator.path.resolve().parents[1] / "history.csv"
    has_converged = None
    if history.is_file():
        has_converged = converged(
            pd.read_csv(history)["val/score"].tolist(), comparator.config.trainer.early_stopping.min_delta
        )
    return Comparator(comparator.path, predictions, has_converged, bool(other_values(comparator.spec, data.spec)))


def _unlike(comparator: Checkpoint, saved: Checkpoint) -> str:
    """How the comparator's data differ from those of ``saved``; empty where they are the same."""
    theirs, ours, differences = comparator.spec, saved.spec, []
    if theirs.split_hash != ours.split_hash:
        differences.append(f"was trained on the split {theirs.split_hash[:8]}, not {ours.split_hash[:8]}")
    if (theirs.task, theirs.outputs) != (ours.task, ours.outputs):
        other = sorted(set(theirs.outputs) ^ set(ours.outputs))
        differences.append(
            f"predicts other outputs ({some(other) if other else 'in another order, or of another task'})"
        )
    return " and ".join(differences)


def _check_same_part(comparator: Checkpoint, theirs: RecordDataModule, ours: RecordDataModule, part: str) -> None:
    records = [data.record(part) for data in (theirs, ours)]
    same = np.array_equal(records[0].sample_id, records[1].sample_id) and [*theirs.evaluation_inputs(part)] == [
        *ours.evaluation_inputs(part)
    ]
    truth = [np.asarray(record.target, dtype=np.float64) for record in records]
    if not same or not np.array_equal(truth[0], truth[1], equal_nan=True):
        difference = "measured values" if same else "samples"
        raise InputError(
            f"the comparator {comparator.path} reads data whose part {part!r} has other {difference}; train it on "
            "the data of ckpt"
        )


def _class(saved: Checkpoint) -> str:
    return str(OmegaConf.select(saved.config, "model._target_")).rpartition(".")[2]
