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
    for asked, rows, place in _chunks(row):
        product = (weight[rows] @ matrix).toarray()
        half[asked] = product[place, column[asked]]
    return np.asarray(matrix[left, right]).ravel() + half[: len(left)] + half[len(left) :]


def smooth_both(weight: sp.csr_matrix, matrix: sp.csr_matrix, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """As ``smooth_one``, and with both items replaced: ((I + W) R (I + W)^T)_ij, float32 [P].

    Only rows of items that are asked for are computed: all for a whole screen, few for a few pairs.
    """
    whole = (weight + sp.eye(weight.shape[0], dtype=np.float32)).tocsr()
    total = np.empty(len(left), dtype=np.float32)
    others, place_right = np.unique(right, return_inverse=True)
    of_others = whole[others]
    for asked, rows, place in _chunks(left):
        product = of_others @ (whole[rows] @ matrix).toarray().T
        total[asked] = product[place_right[asked], place]
    return total


def _chunks(index: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows that ``index`` names, some at a time: where it names them, the rows, and which of these it names there."""
    order = np.argsort(index, kind="stable")
    rows, first = np.unique(index[order], return_index=True)
    bounds = np.append(first, len(index))
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        asked = order[bounds[start] : bounds[start + len(some)]]
        yield asked, some, np.searchsorted(some, index[asked])


def shrunk(total: np.ndarray, evidence: np.ndarray, prior: float) -> np.ndarray:
    """total / (evidence + prior), and 0 where there is no evidence."""
    return np.divide(total, evidence + prior, out=np.zeros_like(total, dtype=np.float64), where=evidence > 0)


def present(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """1 where ``matrix`` holds a value."""
    ones = matrix.copy()
    ones.data = np.ones_like(ones.data)
    return ones
