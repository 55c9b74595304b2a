"""Comparators: other trained models that answer what a model is scored on, to be compared with it."""

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
"""Keys of a config that say what a datamodule holds."""


@dataclass(frozen=True, eq=False)
class Comparator:
    """A trained model and what it says of a part.

    Attributes:
        path: Its checkpoint.
        predictions: By record as in ``RecordDataModule.asked``: what is kept of its answers.
        converged: False while its validation score still rose when its training stopped; None if its run is not there.
        data_changed: Whether its data are other than those it was trained on.
    """

    path: Path
    predictions: dict[str, np.ndarray]
    converged: bool | None
    data_changed: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """What ``metrics.json`` holds of it besides the comparison."""
        changed = {"data_changed": True} if self.data_changed else {}
        return {"ckpt": str(self.path), "converged": self.converged, **changed}

    def noted(self, found: PairwiseComparison) -> PairwiseComparison:
        """The comparison, with a word on a comparator that could have become better, or knew other data."""
        if self.data_changed:
            return found.with_note("its data changed after its training")
        return found.with_note("it was still improving when it stopped") if self.converged is False else found


def opened(paths: Sequence[str], saved: Checkpoint) -> list[Checkpoint]:
    """The comparators of ``saved``.

    Raises:
        InputError: No checkpoint; or, all in one, those of another split or of other outputs.
    """
    found = [checkpoint.load(path) for path in paths]
    wrong = [f"{other.path} {why}" for other in found if (why := _unlike(other, saved))]
    if wrong:
        raise InputError(
            f"comparators that can't be scored beside {saved.path}: {'; '.join(wrong)}. Train them on its split and "
            "data"
        )
    return found


def named(comparators: Sequence[Checkpoint], saved: Checkpoint, taken: Collection[str]) -> dict[str, Checkpoint]:
    """The comparators by their class, or by class and run where that is the model's or another's too.

    Args:
        comparators: Opened.
        saved: The model under test.
        taken: Names of its baselines.

    Raises:
        InputError: One checkpoint twice, or the model itself.
    """
    paths = [one.path.resolve() for one in (saved, *comparators)]
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise InputError(f"checkpoints that stand twice in ckpt and comparators: {some(twice)}; name each once")
    classes = [_class(one) for one in (saved, *comparators)]
    found: dict[str, Checkpoint] = {}
    for one in comparators:
        name = _class(one)
        if classes.count(name) > 1 or name in taken:
            run, stem = one.path.resolve().parents[1].name, one.path.stem
            name = f"{name} {run}" if stem == "best" else f"{name} {run} {stem}"
        if name in found:
            name = str(one.path).replace("/", "_")  # a layer of an h5ad takes no slash
        found[name] = one
    return found


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
    """What a comparator says of the samples of ``part``, read through its own datamodule.

    Args:
        trainer: Of one process.
        comparator: Opened.
        saved: The model under test.
        datamodule: That of ``saved``; taken for the comparator too where their configs say the same of the data.
        part: Of the split.
        batch_size: Samples at once; none: as the comparator's run has it.
        trust: Further packages whose classes the checkpoint may name.
        data_changed: ``allow`` data that changed since the comparator's training, else ``error``.

    Raises:
        InputError: Data that changed, or whose part holds other samples or measured values.
    """
    model, data = comparator.model(trust), datamodule
    unlike = any(OmegaConf.select(comparator.config, key) != OmegaConf.select(saved.config, key) for key in DATA)
    if unlike or comparator.prior_plain is not None:  # whose batches hold the prior's predictions
        data = build.datamodule_of(comparator, trust, data_changed)
        data.eval_batch_size = batch_size or data.eval_batch_size
        _check_same_part(comparator, data, datamodule, part)
    else:
        comparator.check_data(data.spec, data_changed)
    prediction = predict_part(trainer, model, data, part)
    answers = predict_inputs(model, data, part, prediction, trainer.strategy.root_device)
    history = comparator.path.resolve().parents[1] / "history.csv"
    flat = None
    if history.is_file():
        flat = converged(pd.read_csv(history)["val/score"].tolist(), comparator.config.trainer.early_stopping.min_delta)
    return Comparator(comparator.path, answers, flat, bool(other_values(comparator.spec, data.spec)))


def _unlike(comparator: Checkpoint, saved: Checkpoint) -> str:
    """What tells the comparator's data from those of ``saved``; empty for the same."""
    theirs, ours, said = comparator.spec, saved.spec, []
    if theirs.split_hash != ours.split_hash:
        said.append(f"was trained on the split {theirs.split_hash[:8]}, not {ours.split_hash[:8]}")
    if (theirs.task, theirs.outputs) != (ours.task, ours.outputs):
        other = sorted(set(theirs.outputs) ^ set(ours.outputs))
        said.append(f"predicts other outputs ({some(other) if other else 'in another order, or of another task'})")
    return " and ".join(said)


def _check_same_part(comparator: Checkpoint, theirs: RecordDataModule, ours: RecordDataModule, part: str) -> None:
    both = [data.record(part) for data in (theirs, ours)]
    same = np.array_equal(both[0].sample_id, both[1].sample_id) and [*theirs.evaluation_inputs(part)] == [
        *ours.evaluation_inputs(part)
    ]
    truth = [np.asarray(one.target, dtype=np.float64) for one in both]
    if not same or not np.array_equal(truth[0], truth[1], equal_nan=True):
        what = "measured values" if same else "samples"
        raise InputError(
            f"the comparator {comparator.path} reads data whose part {part!r} has other {what}; train it on "
            "the data of ckpt"
        )


def _class(saved: Checkpoint) -> str:
    return str(OmegaConf.select(saved.config, "model._target_")).rpartition(".")[2]
