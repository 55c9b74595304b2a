"""Nearest neighbours of a gene by network similarity; serves genes that were never screened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from torchcell.baselines.base import Baseline, validation_score
from torchcell.baselines.neighbours import Offset, offsets, present, raised, shrunk, smooth_both
from torchcell.baselines.pairs import Items, SetPairs
from torchcell.data.screen import Screen
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighbourhoods import cosine_neighbours, neighbourhoods


@dataclass(frozen=True, eq=False)
class _Fitted:
    """One phenotype: what is taken off, the training pairs, the exponent and the prior."""

    offset: Offset
    matrix: sp.csr_matrix
    power: float
    prior: float


class NetworkNeighbours(Baseline):
    """Pair (i, j) is the weighted mean of the training pairs (k, l), k near or equal i, l near or equal j.

    Nearness is the cosine of two genes' neighbourhoods in all relations and, where the graph has them, of
    their annotations. The mean is shrunk towards an offset (zero, the mean or the additive ridge,
    chosen on val), which is the prediction of a set that no training pair is near to. Larger sets get the
    mean over their pairs, a single gene is paired with the unperturbed cell. NaN without a graph, or for
    a kind of perturbation unseen in train.

    Args:
        k: Neighbours a gene.
        powers: Exponents of the cosine to choose from.
        priors: Pseudo-evidence to choose from, in units of the mean evidence of the validation pairs.
    """

    name = "network_neighbours"

    def __init__(
        self,
        k: int = 50,
        powers: Sequence[float] = (1.0, 1.5, 2.0),
        priors: Sequence[float] = (0.03, 0.1, 0.3, 1.0),
    ) -> None:
        self.k, self.powers, self.priors = k, tuple(powers), tuple(priors)

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.items = Items.of(train)
        self.fitted: list[_Fitted] = []
        if graph is None:
            return self
        # The same gene perturbed in another way is another item, near none of this kind.
        genes = sp.kron(neighbourhoods(graph, train.genes), sp.eye(self.items.n_kinds, dtype=np.float32))
        feature = sp.vstack([genes, sp.csr_matrix((1, genes.shape[1]), dtype=np.float32)], format="csr")
        cosine = cosine_neighbours(feature, self.k)
        self.weight = {power: raised(cosine, power) for power in self.powers}
        pairs, asked = SetPairs.of(train, self.items), SetPairs.of(val, self.items)
        for t in range(train.phenotype.shape[1]):
            self.fitted.append(self._fit_one(train, val, pairs, asked, t))
        return self

    def _fit_one(self, train: Screen, val: Screen, pairs: SetPairs, asked: SetPairs, t: int) -> _Fitted:
        best, best_score = None, -np.inf
        candidates = offsets(train, val)
        known = present(pairs.matrix(train.phenotype[:, t], len(self.items)))
        for power, weight in self.weight.items():
            evidence = smooth_both(weight, known, asked.left, asked.right)
            middle = float(evidence.mean()) if len(evidence) else 1.0
            for offset in candidates:
                matrix = pairs.matrix(train.phenotype[:, t] - offset.of(train)[:, t], len(self.items))
                total = smooth_both(weight, matrix, asked.left, asked.right)
                for prior in self.priors:
                    prediction = offset.of(val)[:, t] + asked.mean(shrunk(total, evidence, prior * middle))
                    score = validation_score(val.phenotype[:, t], prediction, train.task)
                    if best is None or score > best_score:
                        best, best_score = _Fitted(offset, matrix, power, prior * middle), score
        assert best is not None
        return best

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Baseline``."""
        if not self.fitted:
            return np.full((len(record), len(record.phenotype_names)), np.nan, dtype=np.float32)
        asked = SetPairs.of(record, self.items)
        columns = []
        for t, fitted in enumerate(self.fitted):
            weight = self.weight[fitted.power]
            total = smooth_both(weight, fitted.matrix, asked.left, asked.right)
            evidence = smooth_both(weight, present(fitted.matrix), asked.left, asked.right)
            columns.append(fitted.offset.of(record)[:, t] + asked.mean(shrunk(total, evidence, fitted.prior)))
        return np.stack(columns, axis=1).astype(np.float32)
