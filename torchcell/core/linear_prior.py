"""``LinearPrior``: a ridge, or a logistic regression, on named columns; its weights say what carries a prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

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


class ListColumns(NamedTuple):
    """Columns of L true samples and of the K that each is ranked among.

    Attributes:
        columns_LKF: The true sample first, float32 [L, 1 + K, F].
        out_LK: Which of them take no part, bool [L, 1 + K].
    """

    columns_LKF: np.ndarray
    out_LK: np.ndarray


def fit_lists(
    names: Sequence[str],
    columns_nF: np.ndarray,
    label_n: np.ndarray,
    lists: Sequence[ListColumns],
    val: tuple[np.ndarray, Callable[[np.ndarray], float]],
    penalties: Sequence[float],
) -> LinearPrior:
    r"""Log-odds that also rank: the least cross-entropy + -log of the true ones' shares of their lists + L2.

    .. math::
        \sum_i \log(1 + e^{-y_i s_i}) - \sum_l \log \frac{e^{s_{l0}}}{\sum_k e^{s_{lk}}} + \frac{p}{2} |w|^2

    Args:
        names: Of the columns, ``source: what``.
        columns_nF: Of samples with labels, none of which an expert was fitted to.
        label_n: Bool.
        lists: Likewise; what a list has in common adds nothing to it (McFadden's conditional logit, 1974).
        val: Columns, and what a prediction of theirs costs, which chooses the penalty.
        penalties: p, to choose from, in samples.

    Returns:
        The fit; its prediction is log-odds.
    """
    mean_F, scale_F = columns_nF.mean(0, dtype=np.float64), columns_nF.std(0, dtype=np.float64)
    scale_F = np.where(scale_F > 1e-6 * np.maximum(np.abs(mean_F), 1e-6), scale_F, 0)
    sources = list(dict.fromkeys(name.split(": ")[0] for name in names))
    empty = LinearPrior(list(names), mean_F, scale_F, np.zeros(len(names)), 0.0, 0.0, False, sources, np.empty(0))
    with one_thread():
        z_nF, held = empty.standardized(columns_nF), empty.standardized(val[0])
        listed = [
            (empty.standardized(one.columns_LKF.reshape(-1, len(names))).reshape(one.columns_LKF.shape), one.out_LK)
            for one in lists
        ]
        found, best, least = np.zeros(len(names) + 1), empty, np.inf
        for penalty in sorted(penalties, reverse=True):
            found = _least(z_nF, label_n, listed, penalty, found)
            error = val[1](held @ found[:-1] + found[-1]) if len(held) else 0.0
            if error < least or best is empty:
                least, best = error, replace(empty, weight_F=found[:-1], intercept=float(found[-1]), penalty=penalty)
        place = np.array([sources.index(name.split(": ")[0]) for name in names])
        each = [float(np.std(z_nF @ np.where(place == i, best.weight_F, 0))) for i in range(len(sources))]
    return replace(best, spread_S=np.array(each))


def _least(
    z_nF: np.ndarray,
    label_n: np.ndarray,
    lists: Sequence[tuple[np.ndarray, np.ndarray]],
    penalty: float,
    start: np.ndarray,
) -> np.ndarray:
    """Weights and, last, the intercept of the least loss of ``fit_lists``, from those of another penalty."""
    import torch

    z, label = torch.from_numpy(z_nF), torch.from_numpy(label_n.astype(np.float32))
    listed = [(torch.from_numpy(columns), torch.from_numpy(out)) for columns, out in lists]
    w = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    # float32 rounds the loss at its seventh digit: a tighter stop is never met
    solver = torch.optim.LBFGS([w], max_iter=100, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=1e-3)

    def loss() -> torch.Tensor:
        odds = z @ w[:-1] + w[-1]
        total = (torch.nn.functional.softplus(odds) - label * odds).sum() + penalty / 2 * w[:-1].square().sum()
        for columns, out in listed:
            score = (columns @ w[:-1]).masked_fill(out, -torch.inf)
            total = total + (score.logsumexp(1) - score[:, 0]).sum()
        return total

    def step() -> torch.Tensor:
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    solver.step(step)
    return w.detach().double().numpy()


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
