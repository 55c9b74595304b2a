"""Rows of unlike length in one array: row i is ``member[ptr[i]:ptr[i + 1]]``."""

from __future__ import annotations

import numpy as np


def take_rows(ptr: np.ndarray, member: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pointer and members of the rows ``at`` of a ragged table."""
    rows = [member[ptr[i] : ptr[i + 1]] for i in at.tolist()]
    new_ptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return new_ptr, np.concatenate([np.empty(0, dtype=np.int64), *rows]).astype(np.int64)


def keep_members(ptr: np.ndarray, member: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pointer and members of a ragged table without the members that are not ``kept`` (bool per cell)."""
    stays = kept[member]
    return np.concatenate([[0], np.cumsum(stays)])[ptr].astype(np.int64), member[stays]
