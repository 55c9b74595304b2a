"""Nearest neighbours of a gene by its interaction profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from torchcell.baselines.base import Baseline, validation_score
from torchcell.baselines.neighbours import Offset, offsets, present, raised, shrunk, smooth_one
from torchcell.baselines.pairs import Items, SetPairs
from torchcell.data.screen import Screen
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighbourhoods import cosine_neighbours


@dataclass(frozen=True, eq=False)
class _Fitted:
    """One phenotype: what is taken off, the training pairs, who is near whom, and the prior."""

    offset: Offset
    matrix: sp.csr_matrix
    weight: sp.csr_matrix
    prior: float


class ProfileNeighbours(Baseline):
    """Pair (i, j) is the weighted mean of the training pairs (k, j), k near i, and (i, l), l near j.

    A gene's profile is its row in the matrix of training pairs; nearness is the cosine of two rows. The
    mean is shrunk towards an offset (zero, the mean or the additive ridge, chosen on val). Sets of three
    and more genes get the mean over their pairs, a single gene is paired with the unperturbed cell.
    NaN for a set with a gene that has no training value: it has no profile.

    Args:
        k: Neighbours a gene.
        powers: Exponents of the cosine to choose from.
        priors: Pseudo-evidence to choose from, in units of the mean evidence of the validation pairs.
        damping: Added to the length of a profile, in root mean squares of the values.
    """

    name = "profile_neighbours"

    def __init__(
        self,
        k: int = 500,
        powers: Sequence[float] = (2.0, 3.0),
        priors: Sequence[float] = (0.03, 0.1, 0.3, 1.0),
        damping: float = 2.0,
    ) -> None:
        self.k, self.powers, self.priors, self.damping = k, tuple(powers), tuple(priors), damping

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.items = Items.of(train)
        pairs, asked = SetPairs.of(train, self.items), SetPairs.of(val, self.items)
        self.fitted = [self._fit_one(train, val, pairs, asked, t) for t in range(train.phenotype.shape[1])]
        return self

    def _fit_one(self, train: Screen, val: Screen, pairs: SetPairs, asked: SetPairs, t: int) -> _Fitted:
        candidates = [
            (offset, pairs.matrix(train.phenotype[:, t] - offset.of(train)[:, t], len(self.items)))
            for offset in offsets(train, val)
        ]
        strange = asked.strangers(_seen(candidates[0][1]))
        truth = np.where(strange, np.nan, val.phenotype[:, t])
        if np.isnan(truth).all():  # held-out genes have no profile: nothing to choose by, nothing to predict
            offset, matrix = candidates[0]
            return _Fitted(offset, matrix, raised(self._cosine(matrix), self.powers[0]), self.priors[0])
        best, best_score = None, -np.inf
        for offset, matrix in candidates:
            cosine = self._cosine(matrix)
            for power in self.powers:
                weight = raised(cosine, power)
                total, evidence = _evidence(weight, matrix, asked)
                middle = float(evidence.mean())
                for prior in self.priors:
                    prediction = offset.of(val)[:, t] + asked.mean(shrunk(total, evidence, prior * middle))
                    score = validation_score(truth, prediction, train.task)
                    if best is None or score > best_score:
                        best, best_score = _Fitted(offset, matrix, weight, prior * middle), score
        assert best is not None
        return best

    def _cosine(self, matrix: sp.csr_matrix) -> sp.csr_matrix:
        size = float(np.sqrt(np.mean(matrix.data**2))) if matrix.nnz else 1.0
        return cosine_neighbours(matrix, self.k, self.damping * size)

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Baseline``."""
        asked = SetPairs.of(record, self.items)
        columns = []
        for t, fitted in enumerate(self.fitted):
            total, evidence = _evidence(fitted.weight, fitted.matrix, asked)
            column = fitted.offset.of(record)[:, t] + asked.mean(shrunk(total, evidence, fitted.prior))
            columns.append(np.where(asked.strangers(_seen(fitted.matrix)), np.nan, column))
        return np.stack(columns, axis=1).astype(np.float32)


def _seen(matrix: sp.csr_matrix) -> np.ndarray:
    """Items with a training value [items]."""
    return np.diff(matrix.indptr) > 0


def _evidence(weight: sp.csr_matrix, matrix: sp.csr_matrix, asked: SetPairs) -> tuple[np.ndarray, np.ndarray]:
    total = smooth_one(weight, matrix, asked.left, asked.right)
    return total, smooth_one(abs(weight), present(matrix), asked.left, asked.right)
