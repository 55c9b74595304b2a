"""Additive ridge: each perturbed gene adds its own constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from sklearn.linear_model import Ridge

from torchcell.baselines.base import Baseline, incidence, measured, one_thread, require_same_genes, validation_score
from torchcell.data.screen import Screen
from torchcell.graph.cell_graph import CellGraph


class AdditiveRidge(Baseline):
    """y = b + sum over the set of w[gene, kind], with a ridge penalty alpha on w.

    Sets of any size and kind. A gene unseen in train adds nothing.

    Args:
        alphas: Penalties to choose from, in samples (phenotype-scale free).
    """

    name = "additive_ridge"

    def __init__(self, alphas: Sequence[float] = (0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0)) -> None:
        self.alphas = tuple(alphas)

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.genes = train.genes
        x_train, x_val = incidence(train), incidence(val)
        self.models: list[Ridge | None] = []
        for t in range(train.phenotype.shape[1]):
            held = measured(train, t)
            best, best_score = None, -np.inf
            for alpha in self.alphas:
                if not held.any():
                    break
                # sparse_cg solves on the sparse table itself; 1e-8 is far below the noise of any screen.
                model = Ridge(alpha=alpha, solver="sparse_cg", tol=1e-8)
                with one_thread():
                    model.fit(x_train[held], train.phenotype[held, t].astype(np.float64))
                score = validation_score(val.phenotype[:, t], model.predict(x_val), train.task)
                if best is None or score > best_score:
                    best, best_score = model, score
            self.models.append(best)
        return self

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Baseline``."""
        require_same_genes(record, self.genes)
        x = incidence(record)
        nothing = np.full(len(record), np.nan)
        columns = [nothing if model is None else model.predict(x) for model in self.models]
        return np.stack(columns, axis=1).astype(np.float32)
