"""Checks that the records share: each raises one error that names the offending rows or genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from torchcell.data.errors import InputError, near, some

if TYPE_CHECKING:
    import pandas as pd


def as_positions(index: np.ndarray) -> np.ndarray:
    """Integer positions, int64, for integers or a mask."""
    index = np.asarray(index)
    return np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)


def refuse(record: str, ids: np.ndarray | Sequence[str], what: str, remedy: str) -> None:
    """Raise if any ``ids`` are given: they name the samples with ``what``."""
    if len(ids):
        raise InputError(f"{record}: {len(ids)} sample(s) with {what}: {some(ids)}; {remedy}")


def refuse_repeats(record: str, names: np.ndarray, what: str, remedy: str = "make them unique") -> None:
    """Raise if a name stands twice."""
    unique, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"{record}: {what} used twice: {some(unique[counts > 1])}; {remedy}")


def refuse_shapes(record: str, arrays: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise if an array has another shape than expected; an array that is None is left alone."""
    for name, shape in expected.items():
        value = arrays[name]
        if value is not None and np.shape(value) != shape:
            raise InputError(f"{record}: {name} has shape {np.shape(value)}, expected {shape}")


def column(record: str, table: pd.DataFrame, name: str) -> np.ndarray:
    """One column of a table as an array; a missing one is an error with the nearest names."""
    if name not in table.columns:
        present = [str(c) for c in table.columns]
        raise InputError(f"{record}: no column {name!r}; the nearest are {near(name, present) or present}")
    return table[name].to_numpy()


def texts(values: np.ndarray) -> np.ndarray:
    """Values as text; a missing one (None, NaN, pandas' NA) becomes the empty text."""
    import pandas as pd

    missing = pd.isna(values).tolist()
    return np.array(["" if none else str(value) for value, none in zip(values, missing, strict=True)], dtype=str)


def flags(record: str, name: str, values: np.ndarray) -> np.ndarray:
    """Values as bool: bool, 0/1, or the texts true and false in any case; anything else is refused."""
    import pandas as pd

    if missing := int(pd.isna(values).sum()):
        raise InputError(f"{record}: {name} is missing in {missing} row(s); it must be true or false")
    read = {value: _FLAGS.get(str(value).strip().lower()) for value in set(values.tolist())}
    if odd := sorted(str(value) for value, flag in read.items() if flag is None):
        raise InputError(
            f"{record}: {name} holds {some(odd)}; it must be true or false: write true and false, or 1 and 0"
        )
    return np.array([read[value] for value in values.tolist()], dtype=bool)


_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
