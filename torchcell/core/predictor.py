"""``Predictor``: the interface of all baselines and priors; ridge regression and means that several share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.io.state import annotated, plain_of, restored

if TYPE_CHECKING:
    from torchcell.core.prior import InnerPart

Folds = Callable[[Any], Iterable[tuple[np.ndarray, np.ndarray]]]
"""A training record -> which of its samples to fit on and which to predict, masks [n], a fold each."""


@configurable(subclasses=True)
class Predictor(ABC):
    """Fitted on train, tuned on val; predicts a record whose target is blanked. A predictor is for records of one task.

    ``fit`` stores its results in attributes that the class annotates: they are the state. They may be arrays, SciPy
    matrices, texts, numbers, other predictors, dataclasses and named tuples of these, so that a state is a file without
    pickles. Values from the graph need not be among them: ``load_state_dict`` gets the graph again.

    Example:
        >>> class Median(Predictor):
        ...     name = "median"
        ...     median_T: np.ndarray
        ...     def fit(self, train, val, graph):
        ...         self.median_T = np.nanmedian(train.target, axis=0)
        ...         return self
        ...     def predict(self, record):
        ...         return np.tile(self.median_T.astype(np.float32), (len(record), 1))
    """

    name: ClassVar[str]

    reads_levels: ClassVar[bool] = False
    """Whether it uses doses and expression levels of perturbed genes."""

    most_samples: ClassVar[int | None] = None
    """Training samples that a run fits it to at most, where more would take hours and teach it little; none: all."""

    @abstractmethod
    def fit(self, train: Any, val: Any, graph: Any) -> Self:
        """Fit to the training part.

        Args:
            train: The only samples that values are fitted to.
            val: Samples to choose hyper-parameters by.
            graph: The wild-type networks, where the task has them.
        """

    @abstractmethod
    def predict(self, record: Any) -> np.ndarray:
        """Predictions in the target's units, float32 [n, T]; scores for a binary task.

        Args:
            record: Samples of the task, e.g. a part of a split or a request; its target is not used.

        Returns:
            NaN rows for samples without a prediction.
        """

    def with_folds(self, folds: Folds) -> Self:
        """Take how the training part is split again, by the split's method, before ``fit``; most do not need it."""
        return self

    def out_of_fold(self) -> np.ndarray | None:
        """Its own predictions of the training samples, each fitted without the sample [n, T]; NaN where it has none.

        None: it makes no such predictions while it is fitted, so that it is fitted again for each fold.
        """
        return None

    def columns(self, record: Any) -> np.ndarray | None:
        """The columns that its predictions are linear in, standardized, float32 [n, F]; None: there are none."""
        return None

    def columns_out_of_fold(self, parts: Sequence[InnerPart], val: Any, graph: Any) -> Iterator[np.ndarray]:
        """``columns`` of the held-out samples of each inner fold [m, F] by what is fitted to the rest, after ``fit`` or
        ``load_state_dict``; NaN where that says nothing.
        """
        return iter(())

    def contributions(self) -> list[dict[str, float]]:
        """Of each output, what each named source adds to predictions: standard deviation over training samples.

        One for all outputs where they share their weights; empty where a predictor is no sum over sources.
        """
        return []

    def state_dict(self) -> dict[str, Any]:
        """The fitted values as plain values, see ``torchcell.io.state``."""
        return {name: plain_of(getattr(self, name)) for name in annotated(type(self))}

    def load_state_dict(self, state: Mapping[str, Any], graph: Any = None) -> Self:
        """Restore what ``state_dict`` returned; predictions are then the same to the last bit.

        Args:
            state: From a predictor of the same class and config.
            graph: The graph that it was fitted with.

        Raises:
            KeyError, ValueError, TypeError: The state is of another class or version.
        """
        for name, hint in annotated(type(self)).items():
            setattr(self, name, restored(hint, state[name]))
        return self


@contextmanager
def one_thread() -> Iterator[None]:
    """One BLAS and OpenMP thread within the block, the caller's number after it.

    The baselines are many small steps: threads that wait for each other made factorization 25 times slower on two
    busy cores (370 s against 14 s).
    """
    with threadpool_limits(limits=1):
        yield


def require_same_genes(record: Any, genes: np.ndarray) -> None:
    """Refuse a record over another gene list than that of training: positions would mean other genes."""
    if not np.array_equal(record.genes, genes):
        raise InputError(
            f"{record.name} has another gene list than the baseline was fitted on; take train and test from one record"
        )


def validation_score(truth: np.ndarray, prediction: np.ndarray, task: str) -> float:
    """The score that hyper-parameters are chosen by: Pearson, or AUROC for a binary task.

    Args:
        truth: Measured values [n].
        prediction: Predictions [n]; samples with NaN are left out.
        task: As in ``Screen.task``.

    Returns:
        The score; minus infinity where it is undefined, so that every defined score is preferred.
    """
    defined = ~(np.isnan(truth) | np.isnan(prediction))
    truth, prediction = truth[defined].astype(np.float64), prediction[defined].astype(np.float64)
    if len(truth) < 2 or np.ptp(truth) == 0 or np.ptp(prediction) == 0:
        return -np.inf
    if task == "binary":
        from sklearn.metrics import roc_auc_score

        return float(roc_auc_score(truth, prediction))
    return float(np.corrcoef(truth, prediction)[0, 1])


@dataclass(frozen=True, eq=False)
class GroupMeans:
    """The mean of each group's rows, and a row for unknown groups.

    Attributes:
        names: Names of the groups, sorted [m].
        means: float64 [m + 1, G]; the last row is for all other names.
    """

    names: np.ndarray
    means: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, names: np.ndarray, otherwise: np.ndarray) -> GroupMeans:
        """Average the rows of each group.

        Args:
            values: [n, G].
            names: Group of each row [n].
            otherwise: Row for a name without rows [G].
        """
        groups, row = np.unique(names, return_inverse=True)
        weight = 1 / np.bincount(row)[row]
        average = sp.csr_matrix((weight, (row, np.arange(len(row)))), shape=(len(groups), len(row)))
        return cls(groups, np.vstack([average @ values.astype(np.float64), otherwise]))

    def __call__(self, names: np.ndarray) -> np.ndarray:
        """The row of each name, float64 [len(names), G]."""
        row = {name: i for i, name in enumerate(self.names.tolist())}
        return self.means[[row.get(name, -1) for name in names.tolist()]]


@dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted ridge, y = y_mean + (x - x_mean) left right, in factors of rank K.

    Attributes:
        x_mean_F: Mean features.
        left_FK: Directions of the features.
        right_KG: Outputs of each direction.
        y_mean_G: Mean outputs.
    """

    x_mean_F: np.ndarray
    left_FK: np.ndarray
    right_KG: np.ndarray
    y_mean_G: np.ndarray

    def predict(self, x_mF: np.ndarray) -> np.ndarray:
        """Outputs for new features, float64 [m, G]."""
        return self.from_projected(self.project(x_mF))

    def project(self, x_mF: np.ndarray) -> np.ndarray:
        """Features along the directions, float64 [m, K]."""
        with one_thread():
            return (x_mF - self.x_mean_F) @ self.left_FK

    def from_projected(self, projected_mK: np.ndarray) -> np.ndarray:
        """Outputs for features along the directions, float64 [m, G]."""
        with one_thread():
            return self.y_mean_G + projected_mK @ self.right_KG


class RidgePath:
    r"""W = argmin ||Y - X W||^2 + \alpha s ||W||^2, X and Y centered, s the mean squared length of X's rows.

    By s the penalty counts in samples, whatever the units of X. The eigenvectors of X X^T, or of X^T X where there are
    fewer features than samples, are computed once for all alphas.

    Args:
        x_nF: Features [n, F].
        y_nG: Outputs [n, G].
    """

    def __init__(self, x_nF: np.ndarray, y_nG: np.ndarray) -> None:
        self.x_mean_F, self.y_mean_G = x_nF.mean(0), y_nG.mean(0)
        x, y = x_nF - self.x_mean_F, y_nG - self.y_mean_G
        self.dual = len(x) <= x.shape[1]
        with one_thread():
            # Both products have the same eigenvalues: the squared singular values of X.
            value, vector = scipy.linalg.eigh(x @ x.T if self.dual else x.T @ x)
            self.value = np.maximum(value, 0)
            self.scale = self.value.sum() / len(x) or 1.0
            self.left = x.T @ vector if self.dual else vector
            self.right = vector.T @ (y if self.dual else x.T @ y)

    def at(self, alpha: float) -> Ridge:
        """The fit at one penalty."""
        return Ridge(self.x_mean_F, self.left, self.right / (self.value + alpha * self.scale)[:, None], self.y_mean_G)

    def predict(self, x_mF: np.ndarray, alpha: float) -> np.ndarray:
        """Outputs for new features at one penalty, float64 [m, G]."""
        return self.at(alpha).predict(x_mF)

    def choose(self, x_mF: np.ndarray, alphas: Sequence[float], score: Callable[[np.ndarray], float]) -> float:
        """The penalty whose prediction for ``x_mF`` scores best; of equals the strongest."""
        projected_mK = self.at(1.0).project(x_mF)  # all penalties share the eigenvectors
        return max(sorted(alphas, reverse=True), key=lambda alpha: score(self.at(alpha).from_projected(projected_mK)))
