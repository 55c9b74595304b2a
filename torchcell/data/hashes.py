"""Hashes of many texts or sets at once: unlike ones tell in a moment that nothing stands twice."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt64


def text_hashes(texts: np.ndarray) -> UInt64[np.ndarray, " n"]:
    """A hash of each text [n]; equal texts have equal ones."""
    texts = np.ascontiguousarray(texts, dtype=str)
    if not texts.size or not texts.dtype.itemsize:
        return np.zeros(len(texts), dtype=np.uint64)
    letters = texts.view(np.uint32).reshape(len(texts), -1)
    found = np.zeros(len(texts), dtype=np.uint64)
    for letter in letters.T:
        found = _mixed(found + letter)
    return found


def sums_of_hashes(members: Int[np.ndarray, " M"], ptr: Int[np.ndarray, " n1"]) -> UInt64[np.ndarray, " n"]:
    """A hash of each set of members, whatever their order; set i is ``members[ptr[i]:ptr[i + 1]]``."""
    total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(_mixed(members.astype(np.uint64)))])
    return total[ptr[1:]] - total[ptr[:-1]]  # sums go round at 2^64, and so do their differences


def may_repeat(hashes: UInt64[np.ndarray, " n"]) -> bool:
    """Whether two are equal; if not, neither are what they are hashes of."""
    import pandas as pd

    return len(pd.unique(hashes)) < len(hashes)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Numbers spread over all 64 bits (the finalizer of SplitMix64, Steele et al. 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
