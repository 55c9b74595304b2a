"""What both neighbour baselines share: cosine neighbours, and means over the pairs of neighbours."""

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


def cosine_neighbours(feature: sp.csr_matrix, k: int, power: float, damping: float = 0.0) -> sp.csr_matrix:
    """Signed power of the cosine to the k nearest others.

    Args:
        feature: One row an item [items, F].
        k: Neighbours kept per item.
        power: w = sign(c) |c|^power.
        damping: Added to each norm, so that short profiles count less.

    Returns:
        Weights [items, items] with zero diagonal; not symmetric.
    """
    feature = feature.tocsr().astype(np.float32)
    norm = np.sqrt(np.asarray(feature.multiply(feature).sum(1)).ravel()) + damping
    unit = (sp.diags(np.divide(1, norm, out=np.zeros_like(norm), where=norm > 0)) @ feature).tocsr()
    transposed = unit.T.tocsr()
    n, blocks = feature.shape[0], []
    for start in range(0, n, CHUNK):
        cosine = (unit[start : start + CHUNK] @ transposed).toarray()
        cosine[np.arange(len(cosine)), start + np.arange(len(cosine))] = 0
        size = np.abs(cosine)
        if k < n:
            size[size < np.partition(size, n - k, axis=1)[:, n - k, None]] = 0
        blocks.append(sp.csr_matrix(np.sign(cosine) * size**power))
    return sp.vstack(blocks, format="csr").astype(np.float32)


def smooth(
    weight: sp.csr_matrix, matrix: sp.csr_matrix, left: np.ndarray, right: np.ndarray, both: bool
) -> np.ndarray:
    """Sum of ``matrix`` over the pair itself and the pairs of its neighbours, weighted.

    Args:
        weight: W, neighbours of each item [items, items].
        matrix: R, symmetric, values of the known pairs [items, items].
        left: Items of the pairs asked for [P].
        right: The other items [P].
        both: Count pairs whose two items are both replaced by neighbours, too.

    Returns:
        (R + W R + R W^T)_ij, and + (W R W^T)_ij if ``both``; float32 [P].
    """
    total = np.asarray(matrix[left, right]).ravel().astype(np.float32)
    for rows, block in _products(weight, matrix, left):
        total[rows] += block(left[rows], right[rows])
    for rows, block in _products(weight, matrix, right):
        total[rows] += block(right[rows], left[rows])
    if both:
        for rows, block in _products(weight, matrix, left, twice=True):
            total[rows] += block(left[rows], right[rows])
    return total


class _Block(NamedTuple):
    """Some rows of W R, or of W R W^T, made dense."""

    first: int
    value: np.ndarray

    def __call__(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return self.value[row - self.first, column]


def _products(
    weight: sp.csr_matrix, matrix: sp.csr_matrix, index: np.ndarray, twice: bool = False
) -> Iterator[tuple[np.ndarray, _Block]]:
    """Chunk by chunk, the pairs whose row lies in it and the dense rows of the product."""
    order = np.argsort(index, kind="stable")
    starts = np.arange(0, weight.shape[0], CHUNK)
    bounds = np.searchsorted(index[order], np.append(starts, weight.shape[0]))
    for start, a, b in zip(starts.tolist(), bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if a == b:
            continue
        value = (weight[start : start + CHUNK] @ matrix).toarray()
        yield order[a:b], _Block(start, (weight @ value.T).T if twice else value)


def shrunk(total: np.ndarray, evidence: np.ndarray, prior: float) -> np.ndarray:
    """total / (evidence + prior), and 0 where there is no evidence."""
    return np.divide(total, evidence + prior, out=np.zeros_like(total, dtype=np.float64), where=evidence > 0)


def present(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """1 where ``matrix`` holds a value."""
    ones = matrix.copy()
    ones.data = np.ones_like(ones.data)
    return ones
