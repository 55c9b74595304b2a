"""Predictions that somebody else's model made: matched to the samples of a part, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from torchcell.io.errors import InputError, near, some
from torchcell.io.in_memory import InMemory

Values = Literal["level", "change"]


@dataclass(frozen=True)
class ForeignColumns:
    """How a file of predictions is read.

    Attributes:
        columns: Our name of a column -> the file's.
        layer: Of an h5ad file; none: ``X``.
        values: ``level``, in the units of the data, or ``change`` from the control, which is added.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    layer: str | None = None
    values: Values = "level"

    def __post_init__(self) -> None:
        if self.values not in ("level", "change"):
            raise InputError(f"values={self.values!r}: must be level or change (from the control)")

    def refuse_unknown(self, path: object, known: tuple[str, ...]) -> None:
        """Raise if ``columns`` names a column that these data do not have."""
        if unknown := [name for name in self.columns if name not in known]:
            raise InputError(f"{path}: columns names {some(unknown)}; there are {some(known)}")


@dataclass(frozen=True, eq=False)
class Foreign:
    """Predictions of m perturbations.

    Attributes:
        key: What was perturbed, as ``ForeignFormat.keys`` writes it [m], each once.
        values: Float32 [m, T]; NaN where the file has no value.
        notes: Sentences on what was left out of the file.
    """

    key: np.ndarray
    values: np.ndarray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeignFormat:
    """How the predictions of others are read for one task.

    Attributes:
        keys: What a prediction is matched by, a text for each sample of a record [n]; replicates share it.
        others: What a sample has beside a named input (see ``RecordDataModule.inputs``), a text each [n]; whether that
            input is used is seen by exchanging predictions among samples that share all else.
        start: What an unperturbed sample has, the same for all of one cell line [n, T]: a prediction that goes to
            another line takes its distance from it along; none: nothing, of scalar phenotypes.
        read: Reads a file for a record: the file, the record, how.
        export: Writes a record with its split, for other programs to train on: the record, the part of each sample [n],
            an empty folder, the name of the data; returns the files.
    """

    keys: Callable[[Any], np.ndarray]
    others: Callable[[Any, str], np.ndarray]
    start: Callable[[Any], np.ndarray | None]
    read: Callable[[str | Path | InMemory, Any, ForeignColumns], Foreign]
    export: Callable[[Any, np.ndarray, Path, str], list[Path]]


def matched(found: Foreign, key: np.ndarray, part: np.ndarray, path: object) -> tuple[np.ndarray, list[str]]:
    """The predictions of the samples of a part, and sentences on what did not meet.

    Args:
        found: The predictions.
        key: Of all samples of the data [n].
        part: Positions of the part's samples [p].
        path: Of the file, for messages.

    Returns:
        Float32 [p, T], NaN where the file has no prediction.

    Raises:
        InputError: No sample of the part has a prediction.
    """
    row = {text: i for i, text in enumerate(found.key.tolist())}
    at = np.array([row.get(text, -1) for text in key[part].tolist()], dtype=np.int64)
    wanted = set(key[part].tolist())
    if not (at >= 0).any():
        given, first = found.key.tolist(), sorted(wanted)
        hint = near(first[0], given) or given
        raise InputError(
            f"{path} has no prediction for this part: its {len(first):,} perturbations are called {some(first, 3)}, "
            f"those of the file {some(hint, 3)}"
        )
    notes = list(found.notes)
    if lacking := sorted(wanted - set(found.key.tolist())):
        notes.append(
            f"no prediction for {len(lacking):,} of {len(wanted):,} perturbations of the part: {some(lacking)}"
        )
    elsewhere = np.isin(found.key, key) & ~np.isin(found.key, key[part])
    if elsewhere.any():
        notes.append(f"{elsewhere.sum():,} predictions are for samples of other parts, and were left out")
    unknown = found.key[~np.isin(found.key, key)].tolist()
    if unknown:
        notes.append(f"{len(unknown):,} predictions are for perturbations that the data do not have: {some(unknown)}")
    predicted = np.full((len(part), found.values.shape[1]), np.nan, dtype=np.float32)
    predicted[at >= 0] = found.values[at[at >= 0]]
    return predicted, notes


def refuse_repeated(path: object, key: np.ndarray) -> None:
    """Raise if a perturbation is predicted twice."""
    different, count = np.unique(key, return_counts=True)
    if (count > 1).any():
        raise InputError(
            f"{path}: {(count > 1).sum():,} perturbations have two rows or more: {some(different[count > 1])}"
        )


def refuse_undefined(path: object, key: np.ndarray, values: np.ndarray) -> None:
    """Raise where a row has values that are not finite."""
    odd = ~np.isfinite(values).all(axis=1)
    if odd.any():
        raise InputError(
            f"{path}: {odd.sum():,} rows hold values that are not finite: {some(key[odd])}; leave such rows out: what "
            "is missing is counted"
        )


def on_genes(path: object, values: np.ndarray, names: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Values [m, G] in the order of the genes of the data, NaN for those that the file lacks.

    Args:
        path: Of the file, for messages.
        values: As in the file [m, K].
        names: Genes of the file [K].
        wanted: Genes of the data [G].

    Raises:
        InputError: A gene twice, or none in common.
    """
    different, count = np.unique(names, return_counts=True)
    if (count > 1).any():
        raise InputError(f"{path}: genes that stand twice in var: {some(different[count > 1])}")
    column = {name: i for i, name in enumerate(names.tolist())}
    at = np.array([column.get(name, -1) for name in wanted.tolist()])
    if not (at >= 0).any():
        raise InputError(f"{path}: no gene in common; the data have {some(wanted, 3)}, the file {some(names, 3)}")
    found = np.full((len(values), len(wanted)), np.nan, dtype=np.float32)
    found[:, at >= 0] = values[:, at[at >= 0]]
    lacking = wanted[at < 0].tolist()
    further = len(set(names.tolist()) - set(wanted.tolist()))
    notes = [f"the file lacks {len(lacking):,} of {len(wanted):,} genes: {some(lacking)}"] if lacking else []
    notes += [f"{further:,} genes of the file are not scored"] if further else []
    return found, notes
