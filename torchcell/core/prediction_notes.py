"""What ``predict`` says of a sample whose like the model never met: texts by sample, and one line over all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Notes = dict[str, list[str]]
"""What is new -> a text for each sample that has it, empty for the others [n]."""


def joined(notes: Notes, n: int) -> np.ndarray:
    """The texts of each of n samples, joined by ``; `` and empty where there are none [n]."""
    columns = list(notes.values()) or [[""] * n]
    return np.array(["; ".join(filter(None, texts)) for texts in zip(*columns, strict=True)], dtype=object)


def summary(notes: Notes, n: int) -> str:
    """How many of n predictions carry a note, and of what; empty where none does."""
    noted = int((joined(notes, n) != "").sum())
    counts = {what: sum(map(bool, texts)) for what, texts in notes.items()}
    named = ", ".join(f"{what} ({count:,})" for what, count in counts.items() if count)
    return f"{noted:,} of {n:,} predictions carry a note: {named}" if noted else ""


def trained_range(values: np.ndarray) -> list[float]:
    """Least and largest of the values that are there; empty where there is none."""
    values = values[~np.isnan(values)]
    return [float(values.min()), float(values.max())] if len(values) else []


def by_owner(text: str, names: np.ndarray, owner: np.ndarray, n: int) -> list[str]:
    """``text`` with each name once for the sample that it is of; empty for a sample without [n]."""
    of: dict[int, dict[str, None]] = {}
    for name, sample in zip(names.tolist(), owner.tolist(), strict=True):
        of.setdefault(sample, {})[str(name)] = None
    return [f"{text} {', '.join(of[i])}" if i in of else "" for i in range(n)]


def unless_known(text: str, values: np.ndarray, known: Sequence[str]) -> list[str]:
    """``text`` with the value of each sample where it is not known [n]."""
    names = set(known)
    return ["" if value in names else f"{text} {value}" for value in map(str, values.tolist())]


def unlike_sizes(what: str, sizes: Sequence[int], trained: Sequence[int]) -> list[str]:
    """A text for each sample of a size that training had none of [n]."""
    text = f"trained on {what}s of {', '.join(map(str, trained))}"
    return ["" if size in trained else f"{what} of {size}, {text}" for size in sizes]


def is_outside(values: np.ndarray, bounds: Sequence[float]) -> np.ndarray:
    """Which values lie outside by more than rounding to single precision; a missing one does not."""
    low, high = bounds
    return (values < low * (1 - 1e-4) - 1e-9) | (values > high * (1 + 1e-4) + 1e-9)


def between(bounds: Sequence[float]) -> str:
    """A range in words, e.g. ``1 to 5``; ``1`` where both ends are one."""
    return " to ".join(dict.fromkeys(f"{bound:.4g}" for bound in bounds))
