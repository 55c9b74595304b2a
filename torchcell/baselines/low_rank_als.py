"""Low-rank factorisation of the pair matrix by alternating least squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from torchcell.baselines.base import Baseline, validation_score
from torchcell.baselines.neighbours import Offset, offsets
from torchcell.baselines.pairs import Items, SetPairs
from torchcell.data.screen import Screen
from torchcell.graph.cell_graph import CellGraph
from torchcell.nn.pair_factors import alternating_least_squares


class _Fitted(NamedTuple):
    """One phenotype: what is taken off, both factors [items, rank] in units of ``size``, items with values."""

    offset: Offset
    size: float
    u: np.ndarray
    v: np.ndarray
    seen: np.ndarray


class LowRankALS(Baseline):
    """Pair (i, j) is offset + (u_i . v_j + u_j . v_i) / 2, with a ridge penalty on both factors.

    Known pairs are fitted with weight 1; pairs without a training value count as zeros of a small weight
    (in a screen that lists only its hits a missing pair is most often a null). The offset (zero, the mean
    or the additive ridge) and the penalty are chosen on val. Sets of three and more genes get the mean
    over their pairs, a single gene is paired with the unperturbed cell. NaN for a set with a gene that
    has no training value.

    Args:
        rank: Width of the factors.
        penalties: Lambda to choose from, for values of root mean square 1.
        missing_weight: Weight of a pair without a value.
        n_iter: Sweeps over both factors.
        seed: Of the start.

    Source: Hu, Koren, Volinsky, ICDM 2008 (alternating least squares with weighted missing entries).
    """

    name = "low_rank_als"

    def __init__(
        self,
        rank: int = 128,
        penalties: Sequence[float] = (2.0, 4.0, 8.0),
        missing_weight: float = 0.02,
        n_iter: int = 8,
        seed: int = 0,
    ) -> None:
        self.rank, self.penalties, self.missing_weight = rank, tuple(penalties), missing_weight
        self.n_iter, self.seed = n_iter, seed

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.items = Items.of(train)
        pairs, asked = SetPairs.of(train, self.items), SetPairs.of(val, self.items)
        self.fitted = [self._fit_one(train, val, pairs, asked, t) for t in range(train.phenotype.shape[1])]
        return self

    def _fit_one(self, train: Screen, val: Screen, pairs: SetPairs, asked: SetPairs, t: int) -> _Fitted:
        def factorise(offset: Offset, rank: int, penalty: float, n_iter: int) -> _Fitted:
            matrix = pairs.matrix(train.phenotype[:, t] - offset.of(train)[:, t], len(self.items))
            return self._factorise(matrix, offset, rank, penalty, n_iter)

        def score(fitted: _Fitted) -> float:
            return validation_score(val.phenotype[:, t], _apply(fitted, val, asked, t), train.task)

        # A narrow and short fit tells which offset serves; the penalty is compared at full width. Where val has
        # only genes without training values every score is -inf, and nothing is left to choose.
        candidates, penalties = offsets(train, val), self.penalties
        narrow = [factorise(offset, min(self.rank, 32), penalties[0], 3) for offset in candidates]
        scores = [score(fitted) for fitted in narrow]
        offset = candidates[int(np.argmax(scores))]
        if np.isneginf(scores).all():
            return narrow[0]
        wide = [score(factorise(offset, self.rank, penalty, 3)) for penalty in penalties]
        return factorise(offset, self.rank, penalties[int(np.argmax(wide))], self.n_iter)

    def _factorise(self, matrix: sp.csr_matrix, offset: Offset, rank: int, penalty: float, n_iter: int) -> _Fitted:
        size = (float(np.sqrt(np.mean(matrix.data**2))) if matrix.nnz else 0.0) or 1.0
        scaled = sp.csr_matrix((matrix.data / size, matrix.indices, matrix.indptr), shape=matrix.shape)
        u, v = alternating_least_squares(scaled, rank, penalty, self.missing_weight, n_iter, self.seed)
        seen = np.diff(matrix.indptr) > 0
        return _Fitted(offset, size, u, v, seen)

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Baseline``."""
        asked = SetPairs.of(record, self.items)
        columns = [_apply(fitted, record, asked, t) for t, fitted in enumerate(self.fitted)]
        return np.stack(columns, axis=1).astype(np.float32)


def _apply(fitted: _Fitted, record: Screen, asked: SetPairs, t: int) -> np.ndarray:
    """Predictions of phenotype t for a record with the pairs ``asked`` [n]; NaN with a gene unseen in train."""
    i, j, u, v = asked.left, asked.right, fitted.u, fitted.v
    product = np.einsum("pr,pr->p", u[i], v[j]) + np.einsum("pr,pr->p", u[j], v[i])
    prediction = fitted.offset.of(record)[:, t] + asked.mean(fitted.size / 2 * product)
    return np.where(asked.strangers(fitted.seen), np.nan, prediction)
