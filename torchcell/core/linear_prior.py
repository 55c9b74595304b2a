"""``LinearPrior``: a ridge, or a logistic regression, on named columns; its weights say what carries a prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.linalg

from torchcell.core.predictor import one_thread

CLIP = 6.0
"""Standard deviations from the mean beyond which a column says no more."""
ROWS = 16_384
"""Rows standardized at once."""


@dataclass(frozen=True, eq=False)
class LinearPrior:
    r"""y = b + sum over the columns of w z, z standardized and clipped; its logistic function for a binary task.

    Attributes:
        names: Of the columns, ``source: what``.
        mean_F: Of each column.
        scale_F: Its standard deviation; 0 for a constant column, which has no weight.
        weight_F: Float64.
        intercept: b.
        penalty: Chosen on validation.
        binary: Whether it predicts a probability.
        sources: Names of the sources, in the order of the columns.
        spread_S: Standard deviation of what each source adds to the prediction of training samples.
    """

    names: list[str]
    mean_F: np.ndarray
    scale_F: np.ndarray
    weight_F: np.ndarray
    intercept: float
    penalty: float
    binary: bool
    sources: list[str]
    spread_S: np.ndarray

    def predict(self, columns_nF: np.ndarray) -> np.ndarray:
        """Predictions float64 [n]; a row's does not depend on the others."""
        found = np.empty(len(columns_nF))
        for rows, z in _standardized(columns_nF, self.mean_F, self.scale_F):
            found[rows] = (z * self.weight_F).sum(1) + self.intercept
        return 1 / (1 + np.exp(-found)) if self.binary else found

    def standardized(self, columns_nF: np.ndarray) -> np.ndarray:
        """The columns in their standard deviations over training samples, clipped, float32 [n, F]."""
        found = np.empty(columns_nF.shape, dtype=np.float32)
        for rows, z in _standardized(columns_nF, self.mean_F, self.scale_F):
            found[rows] = z
        return found


def fit_linear(
    names: Sequence[str],
    columns_nF: np.ndarray,
    target_n: np.ndarray,
    fold_n: np.ndarray,
    val: tuple[np.ndarray, np.ndarray | Callable[[np.ndarray], float]],
    penalties: Sequence[float],
    binary: bool,
) -> tuple[LinearPrior, np.ndarray]:
    """Fit, and predict each training sample by the fit to the other folds.

    Args:
        names: Of the columns, ``source: what``.
        columns_nF: Of training samples, none of which an expert was fitted to.
        target_n: Their values.
        fold_n: Which of them are left out together, from 0.
        val: Columns and values that choose the penalty, by squared error or cross-entropy, NaN being left out; or
            columns and what a prediction of theirs costs (log-odds for a binary task).
        penalties: To choose from, in samples.
        binary: Whether values are 0 and 1.

    Returns:
        The fit, and predictions of the training samples [n].
    """
    mean_F, scale_F = columns_nF.mean(0, dtype=np.float64), columns_nF.std(0, dtype=np.float64)
    scale_F = np.where(scale_F > 1e-6 * np.maximum(np.abs(mean_F), 1e-6), scale_F, 0)
    made = _Logistic if binary and len(np.unique(target_n)) == 2 else _Ridge
    with one_thread():
        problem = made(columns_nF, target_n, fold_n, mean_F, scale_F)
        cost, held = val[1], np.ones(len(val[0]), dtype=bool)
        if isinstance(cost, np.ndarray):
            held = ~np.isnan(cost)
            cost = partial(_error, cost[held], binary=made is _Logistic)
        sources = list(dict.fromkeys(name.split(": ")[0] for name in names))
        place = np.array([sources.index(name.split(": ")[0]) for name in names])

        def fitted(penalty: float, without: int | None = None) -> LinearPrior:
            weight, intercept = problem.solve(penalty, without)
            binary = made is _Logistic
            return LinearPrior(list(names), mean_F, scale_F, weight, intercept, penalty, binary, sources, np.empty(0))

        every = [fitted(penalty) for penalty in sorted(penalties, reverse=True)]
        weights = np.stack([one.weight_F for one in every])
        predicted = np.empty((len(every), int(held.sum())))
        for rows, z in _standardized(val[0][held], mean_F, scale_F):
            predicted[:, rows] = weights @ z.T + np.array([[one.intercept] for one in every])
        errors = [cost(one) for one in predicted] if held.any() else [0.0]
        best = every[int(np.argmin(errors))]
        each = [problem.spread(np.where(place == i, best.weight_F, 0)) for i in range(len(sources))]
        best = replace(best, spread_S=np.array(each))
        inner = np.full(len(target_n), np.nan)
        for fold in np.unique(fold_n).tolist():
            rows = fold_n == fold
            inner[rows] = fitted(best.penalty, fold).predict(columns_nF[rows])
    return best, inner


def _error(truth: np.ndarray, score: np.ndarray, binary: bool) -> float:
    """Mean squared error, or of logits the mean cross-entropy."""
    if not binary:
        return float(np.mean((truth - score) ** 2))
    return float(np.mean(np.logaddexp(0, score) - truth * score))


def _standardized(
    columns_nF: np.ndarray, mean_F: np.ndarray, scale_F: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    factor = np.divide(1, scale_F, out=np.zeros_like(scale_F), where=scale_F > 0)
    for start in range(0, len(columns_nF), ROWS):
        rows = slice(start, start + ROWS)
        yield rows, np.clip((columns_nF[rows] - mean_F) * factor, -CLIP, CLIP)


class _Ridge:
    """Sums over the samples of each fold, from which every penalty and every left-out fold is solved."""

    def __init__(
        self, columns: np.ndarray, target: np.ndarray, fold: np.ndarray, mean: np.ndarray, scale: np.ndarray
    ) -> None:
        n_folds, width = int(fold.max(initial=0)) + 1, columns.shape[1]
        self.count, self.y = np.zeros(n_folds), np.zeros(n_folds)
        self.z, self.zy = np.zeros((n_folds, width)), np.zeros((n_folds, width))
        self.gram = np.zeros((n_folds, width, width))
        target = target.astype(np.float64)
        for rows, wide in _standardized(columns, mean, scale):
            z = wide.astype(np.float32)  # a product of a block in half the time; blocks are added up in float64
            for f in np.unique(fold[rows]).tolist():
                own = fold[rows] == f
                part, y = z[own], target[rows][own]
                self.count[f] += len(y)
                self.y[f] += y.sum()
                self.z[f] += part.sum(0, dtype=np.float64)
                self.zy[f] += part.T @ y
                self.gram[f] += part.T @ part

    def _centered(self, without: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        chosen = np.arange(len(self.count)) != (-1 if without is None else without)
        n = max(self.count[chosen].sum(), 1.0)
        z, y = self.z[chosen].sum(0) / n, float(self.y[chosen].sum() / n)
        return self.gram[chosen].sum(0) - n * np.outer(z, z), self.zy[chosen].sum(0) - n * z * y, z, y

    def solve(self, penalty: float, without: int | None) -> tuple[np.ndarray, float]:
        """Weights and intercept of a fit to all folds but one."""
        gram, zy, z, y = self._centered(without)
        gram[np.diag_indices_from(gram)] += penalty
        weight = scipy.linalg.solve(gram, zy, assume_a="pos") if len(zy) else zy
        return weight, float(y - z @ weight)

    def spread(self, weight: np.ndarray) -> float:
        """Standard deviation of the weighted sum over all samples."""
        gram = self._centered(None)[0]
        return float(np.sqrt(max(weight @ gram @ weight, 0) / max(self.count.sum(), 1)))


class _Logistic:
    """The same for 0 and 1, by scikit-learn."""

    def __init__(
        self, columns: np.ndarray, target: np.ndarray, fold: np.ndarray, mean: np.ndarray, scale: np.ndarray
    ) -> None:
        self.z = np.concatenate([z for _, z in _standardized(columns, mean, scale)])
        self.target, self.fold = target, fold

    def solve(self, penalty: float, without: int | None) -> tuple[np.ndarray, float]:
        """As ``_Ridge.solve``."""
        from sklearn.linear_model import LogisticRegression

        rows = self.fold != (-1 if without is None else without)
        if len(np.unique(self.target[rows])) < 2:
            rows = np.ones(len(rows), dtype=bool)
        model = LogisticRegression(C=1 / penalty, max_iter=300, tol=1e-6).fit(self.z[rows], self.target[rows])
        return model.coef_[0].astype(np.float64), float(model.intercept_[0])

    def spread(self, weight: np.ndarray) -> float:
        """As ``_Ridge.spread``."""
        return float(np.std(self.z @ weight))
