"""``Baseline``: fit on train, choose on val, predict a record whose phenotype is blanked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from torchcell.data.errors import InputError
from torchcell.data.screen import KINDS, Screen
from torchcell.graph.cell_graph import CellGraph


class Baseline(ABC):
    """What a model must beat. Fitted on train only; val only chooses hyper-parameters.

    A baseline serves one kind of record: ``Screen``, or ``Links`` below ``LinkBaseline``.
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


def incidence(record: Screen) -> sp.csr_matrix:
    """One-hot table of what was perturbed and how, [n, n_genes * n_kinds]; levels are not used."""
    column = record.gene * len(KINDS) + record.kind
    shape = (len(record), len(record.genes) * len(KINDS))
    return sp.csr_matrix((np.ones(len(column)), column, record.ptr), shape=shape)


def measured(record: Screen, output: int) -> np.ndarray:
    """The samples that have a value of phenotype ``output``, as a mask [n]."""
    return ~np.isnan(record.phenotype[:, output])


def require_same_genes(record: Screen, genes: np.ndarray) -> None:
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
