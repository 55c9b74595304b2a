"""What both neighbour baselines share: offsets, and means over the pairs of neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from torchcell.baselines.additive_ridge import AdditiveRidge
from torchcell.baselines.base import Baseline
from torchcell.baselines.mean import Mean
from torchcell.data.screen import Screen

CHUNK = 512  # rows made dense at once: 512 x 4,415 items in float32 are 9 MB

OFFSETS: tuple[str, ...] = ("zero", "mean", "additive")
"""What is taken off the phenotype before interactions are looked at, and added again."""


class Offset(NamedTuple):
    """A fitted offset of one kind of ``OFFSETS``."""

    kind: str
    baseline: Baseline | None

    def of(self, record: Screen) -> np.ndarray:
        """The offset of each sample, float64 [n, T]."""
        if self.baseline is None:
            return np.zeros((len(record), len(record.phenotype_names)))
        return self.baseline.predict(record).astype(np.float64)


def offsets(train: Screen, val: Screen) -> list[Offset]:
    """All of ``OFFSETS``, fitted on train; which one serves is chosen on val by the caller."""
    fitted = (None, Mean().fit(train, val, None), AdditiveRidge().fit(train, val, None))
    return [Offset(kind, baseline) for kind, baseline in zip(OFFSETS, fitted, strict=True)]


def raised(weight: sp.csr_matrix, power: float) -> sp.csr_matrix:
    """sign(w) |w|^power, entry by entry."""
    raised = weight.copy()
    raised.data = np.sign(weight.data) * np.abs(weight.data) ** np.float32(power)
    return raised


def smooth_one(weight: sp.csr_matrix, matrix: sp.csr_matrix, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sum of ``matrix`` over the pair itself and the pairs in which one item gives way to a neighbour.

    Args:
        weight: W, neighbours of each item [items, items].
        matrix: R, symmetric, values of the known pairs [items, items].
        left: Items of the pairs asked for [P].
        right: The other items [P].

    Returns:
        (R + W R + R W^T)_ij, float32 [P].
    """
    row, column = np.concatenate([left, right]), np.concatenate([right, left])
    half = np.empty(len(row), dtype=np.float32)
    for asked, first, rows in _chunks(row, weight.shape[0]):
        product = (weight[rows] @ matrix).toarray()
        half[asked] = product[row[asked] - first, column[asked]]
    return np.asarray(matrix[left, right]).ravel() + half[: len(left)] + half[len(left) :]


def smooth_both(weight: sp.csr_matrix, matrix: sp.csr_matrix, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """As ``smooth_one``, and with both items replaced: ((I + W) R (I + W)^T)_ij, float32 [P]."""
    whole = (weight + sp.eye(weight.shape[0], dtype=np.float32)).tocsr()
    total = np.empty(len(left), dtype=np.float32)
    for asked, first, rows in _chunks(left, weight.shape[0]):
        product = whole @ (whole[rows] @ matrix).toarray().T
        total[asked] = product[right[asked], left[asked] - first]
    return total


def _chunks(index: np.ndarray, n_rows: int) -> Iterator[tuple[np.ndarray, int, slice]]:
    """Where ``index`` falls into each chunk of rows; the chunk's first row; its rows. Empty ones are skipped."""
    order = np.argsort(index, kind="stable")
    starts = np.arange(0, n_rows, CHUNK)
    bounds = np.searchsorted(index[order], np.append(starts, n_rows)).tolist()
    for start, a, b in zip(starts.tolist(), bounds[:-1], bounds[1:], strict=True):
        if a < b:
            yield order[a:b], start, slice(start, start + CHUNK)


def shrunk(total: np.ndarray, evidence: np.ndarray, prior: float) -> np.ndarray:
    """total / (evidence + prior), and 0 where there is no evidence."""
    return np.divide(total, evidence + prior, out=np.zeros_like(total, dtype=np.float64), where=evidence > 0)


def present(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """1 where ``matrix`` holds a value."""
    ones = matrix.copy()
    ones.data = np.ones_like(ones.data)
    return ones
