"""Notes of ``predict`` on samples unlike those of training: a text by sample, and a summary line."""

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
    """How many of n predictions carry a note, by topic; empty where none does."""
    noted = int((joined(notes, n) != "").sum())
    counts = {topic: sum(map(bool, texts)) for topic, texts in notes.items()}
    named = ", ".join(f"{topic} ({count:,})" for topic, count in counts.items() if count)
    return f"{noted:,} of {n:,} predictions carry a note: {named}" if noted else ""


def trained_range(values: np.ndarray) -> list[float]:
    """Smallest and largest value without NaN; empty where there is none."""
    values = values[~np.isnan(values)]
    return [float(values.min()), float(values.max())] if len(values) else []


def by_owner(text: str, names: np.ndarray, owner: np.ndarray, n: int) -> list[str]:
    """``text`` and the names of each sample, each name once; empty for a sample without names [n]."""
    names_of: dict[int, dict[str, None]] = {}
    for name, sample in zip(names.tolist(), owner.tolist(), strict=True):
        names_of.setdefault(sample, {})[str(name)] = None
    return [f"{text} {', '.join(names_of[i])}" if i in names_of else "" for i in range(n)]


def unless_known(text: str, values: np.ndarray, known: Sequence[str]) -> list[str]:
    """``text`` and the value of each sample where that is not known; else empty [n]."""
    names = set(known)
    return ["" if value in names else f"{text} {value}" for value in map(str, values.tolist())]


def unlike_sizes(noun: str, sizes: Sequence[int], trained: Sequence[int]) -> list[str]:
    """A text for each sample of a size that training has none of; else empty [n]."""
    text = f"trained on {noun}s of {', '.join(map(str, trained))}"
    return ["" if size in trained else f"{noun} of {size}, {text}" for size in sizes]


def is_outside(values: np.ndarray, bounds: Sequence[float]) -> np.ndarray:
    """Which values lie outside of bounds by more than float32 rounding; NaN does not [n]."""
    low, high = bounds
    return (values < low * (1 - 1e-4) - 1e-9) | (values > high * (1 + 1e-4) + 1e-9)


def between(bounds: Sequence[float]) -> str:
    """A range in words, e.g. ``1 to 5``; ``1`` where both ends are equal."""
    return " to ".join(dict.fromkeys(f"{bound:.4g}" for bound in bounds))
