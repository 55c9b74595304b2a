"""``Baseline``: fit on train, choose on val, predict a record whose target is blanked; and what baselines share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError


class Baseline(ABC):
    """What a model must beat. Fitted on train only; val only chooses hyper-parameters.

    A baseline serves the records of one task.
    """

    name: ClassVar[str]

    @abstractmethod
    def fit(self, train: Any, val: Any, graph: CellGraph | None) -> Self:
        """Fit.

        Args:
            train: The only source of fitted values.
            val: Chooses hyper-parameters.
            graph: The wild-type networks, where the task has them.
        """

    @abstractmethod
    def predict(self, record: Any) -> np.ndarray:
        """Predictions in the target's units, float32 [n, T]; scores for a binary task.

        Args:
            record: Sets over the same genes as train, or pairs over the same nodes; its target is never read.

        Returns:
            NaN rows where the baseline has nothing to say.
        """


@contextmanager
def one_thread() -> Iterator[None]:
    """One BLAS and OpenMP thread within the block, the caller's number after it.

    The baselines are many small steps: threads that wait for each other made factorisation 25 times slower on two
    busy cores (370 s against 14 s).
    """
    with threadpool_limits(limits=1):
        yield


def require_same_genes(record: Any, genes: np.ndarray) -> None:
    """Refuse a record over another gene list than the one fitted on: positions would mean other genes."""
    if not np.array_equal(record.genes, genes):
        raise InputError(
            f"{record.name} has another gene list than the baseline was fitted on; take train and test from one record"
        )


def validation_score(truth: np.ndarray, prediction: np.ndarray, task: str) -> float:
    """What hyper-parameters are chosen by: Pearson, or AUROC for a binary task.

    Args:
        truth: Measured values [n].
        prediction: Predictions [n]; NaN where there is none, and such samples are left out.
        task: As in ``Screen.task``.

    Returns:
        The score; minus infinity where it is undefined, so that any defined one is preferred.
    """
    both = ~(np.isnan(truth) | np.isnan(prediction))
    truth, prediction = truth[both].astype(np.float64), prediction[both].astype(np.float64)
    if len(truth) < 2 or np.ptp(truth) == 0 or np.ptp(prediction) == 0:
        return -np.inf
    if task == "binary":
        from sklearn.metrics import roc_auc_score

        return float(roc_auc_score(truth, prediction))
    return float(np.corrcoef(truth, prediction)[0, 1])


def group_means(values: np.ndarray, names: np.ndarray, asked: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The mean of each asked name's rows.

    Args:
        values: Rows to average [n, G].
        names: Of the rows [n].
        asked: Names [m].
        otherwise: Row for a name without rows [G].

    Returns:
        float64 [m, G].
    """
    known, row = np.unique(names, return_inverse=True)
    weight = 1 / np.bincount(row)[row]
    share = sp.csr_matrix((weight, (row, np.arange(len(row)))), shape=(len(known), len(row)))
    means = np.vstack([share @ values.astype(np.float64), otherwise])
    place = {name: i for i, name in enumerate(known.tolist())}
    return means[[place.get(name, -1) for name in asked.tolist()]]


class RidgePath:
    r"""W = argmin ||Y - X W||^2 + \alpha s ||W||^2, X and Y centred, s the mean squared length of X's rows.

    The penalty is thereby counted in samples, whatever the units of X. The eigenvectors of X X^T, or of X^T X where
    there are fewer features than samples, serve every alpha.

    Args:
        x_nF: Features [n, F].
        y_nG: Outputs [n, G].
    """

    def __init__(self, x_nF: np.ndarray, y_nG: np.ndarray) -> None:
        self.x_mean_F, self.y_mean_G = x_nF.mean(0), y_nG.mean(0)
        x, y = x_nF - self.x_mean_F, y_nG - self.y_mean_G
        self.dual = len(x) <= x.shape[1]
        with one_thread():
            # The eigenvalues of either product are those of the other: the squared singular values of X.
            value, vector = scipy.linalg.eigh(x @ x.T if self.dual else x.T @ x)
            self.value = np.maximum(value, 0)
            self.scale = self.value.sum() / len(x) or 1.0
            self.left = x.T @ vector if self.dual else vector
            self.right = vector.T @ (y if self.dual else x.T @ y)

    def predict(self, x_mF: np.ndarray, alpha: float) -> np.ndarray:
        """Outputs for new features at one penalty, float64 [m, G]."""
        return self._at(self._turned(x_mF), alpha)

    def choose(self, x_mF: np.ndarray, alphas: Sequence[float], score: Callable[[np.ndarray], float]) -> float:
        """The penalty whose prediction for ``x_mF`` scores best; the strongest of equals."""
        turned_mK = self._turned(x_mF)
        return max(sorted(alphas, reverse=True), key=lambda alpha: score(self._at(turned_mK, alpha)))

    def _turned(self, x_mF: np.ndarray) -> np.ndarray:
        """Features along the eigenvectors, which every penalty shares."""
        with one_thread():
            return (x_mF - self.x_mean_F) @ self.left

    def _at(self, turned_mK: np.ndarray, alpha: float) -> np.ndarray:
        with one_thread():
            return self.y_mean_G + turned_mK @ (self.right / (self.value + alpha * self.scale)[:, None])
