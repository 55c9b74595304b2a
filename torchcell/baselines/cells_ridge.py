"""Ridge regression of the change on the perturbed genes' place in the principal components of training expression."""

from __future__ import annotations

from typing import Self

import numpy as np
import scipy.linalg

from torchcell.baselines.base import Baseline, one_thread
from torchcell.baselines.cells_baseline import balanced_mean, change, require_same_genes
from torchcell.baselines.group_means import group_means
from torchcell.data.conditions import Conditions
from torchcell.graph.cell_graph import CellGraph


class PcaRidge(Baseline):
    r"""Controls plus b + Z W p, the change as a bilinear map between gene and perturbation vectors.

    Z [G, K] are the scores of the genes on K principal components of the training expression (genes as rows; mean of
    each condition and of each group's controls as columns), p the rows of Z of the perturbed genes, added up, and b the
    mean change. W minimises ||Y - b - Z W P^T||^2 by ridge on both sides,
    W = (Z^T Z + \lambda)^{-1} Z^T (Y - b) P (P^T P + \lambda)^{-1}, Y [G, n] the training changes. A condition of which
    no perturbed gene is measured gets b. (Ahlmann-Eltze, Huber and Anders 2025, the linear model.)

    Args:
        k: Principal components.
        penalty: lambda.
    """

    name = "pca_ridge"

    def __init__(self, k: int = 10, penalty: float | int = 0.1) -> None:
        self.k, self.penalty = k, float(penalty)

    def fit(self, train: Conditions, val: Conditions, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.genes, self.place = train.genes, {gene: i for i, gene in enumerate(train.genes.tolist())}
        first = np.unique(train.group, return_index=True)[1]
        level_mG = np.concatenate([train.target, train.other_control[first]]).astype(np.float64)
        change_nG = change(train)
        self.groups, self.overall_G = train.group, balanced_mean(change_nG, train.group)
        self.change = change_nG
        centred_nG = change_nG - self.offset(train)
        with one_thread():
            table_Gm = (level_mG - level_mG.mean(1, keepdims=True)).T
            left, value, _ = scipy.linalg.svd(table_Gm, full_matrices=False)
            self.score_GK = (left * value)[:, : self.k]
            vector_nK = self.vectors(train)
            ridge = self.penalty * np.eye(self.score_GK.shape[1])
            own = scipy.linalg.solve(self.score_GK.T @ self.score_GK + ridge, self.score_GK.T @ centred_nG.T)
            self.weight_KK = scipy.linalg.solve(vector_nK.T @ vector_nK + ridge, (own @ vector_nK).T).T
        return self

    def predict(self, record: Conditions) -> np.ndarray:
        """See ``Baseline``."""
        require_same_genes(record, self.genes)
        with one_thread():
            found = self.offset(record) + self.vectors(record) @ self.weight_KK.T @ self.score_GK.T
        return (record.other_control + found).astype(np.float32)

    def offset(self, record: Conditions) -> np.ndarray:
        """b of each condition's group [n, G]: the mean change in train, over all groups for an unseen one."""
        return group_means(self.change, self.groups, record.group, self.overall_G)

    def vectors(self, record: Conditions) -> np.ndarray:
        """p of each condition [n, K]; zeros where no perturbed gene is measured."""
        found = np.zeros((len(record), self.score_GK.shape[1]))
        for i, targets in enumerate(record.targets):
            at = [self.place[gene] for gene in targets if gene in self.place]
            found[i] = self.score_GK[at].sum(0)
        return found
