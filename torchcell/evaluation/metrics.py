"""Metrics over samples, and over the genes of each sample."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.stats import rankdata

from torchcell.evaluation.bootstrap import Weights

FLAT = 1e-6
"""A vector whose sd is below this share of its largest magnitude is constant up to float32 rounding."""


def is_flat(x: np.ndarray) -> bool:
    """Whether ``x`` [n] is constant up to rounding (an empty vector is)."""
    return len(x) == 0 or bool(np.std(x) <= FLAT * np.max(np.abs(x)))


def pearson(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Correlation of truth and prediction; undefined when either is constant."""
    if is_flat(truth) or is_flat(prediction):
        return _undefined(weights)
    # Centered first, so that a large mean costs no digits in the sums below.
    x, y = truth - truth.mean(), prediction - prediction.mean()
    n, sx, sy, sxx, syy, sxy = weights.total(np.ones_like(x), x, y, x * x, y * y, x * y)
    var_x, var_y = sxx - _ratio(sx**2, n), syy - _ratio(sy**2, n)
    # A resample that repeats one value has a variance of rounding errors only.
    varies = (var_x > 1e-12 * sxx) & (var_y > 1e-12 * syy)
    covariance = sxy - _ratio(sx * sy, n)
    value = _ratio(covariance, np.sqrt(np.where(varies, var_x * var_y, np.nan)))
    return np.clip(value, -1, 1)


def spearman(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Pearson correlation of average ranks; undefined when either is constant.

    Ranks are those of the full set and stay fixed under resampling: a resample changes the weights of ranked
    samples, not the ranks themselves, so integer weights equal repeated rows only where all are 1.
    """
    if is_flat(truth) or is_flat(prediction):
        return _undefined(weights)
    return pearson(rankdata(truth), rankdata(prediction), weights)


def mse(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Mean squared error, in squared units of the phenotype."""
    total, n = weights.total((prediction - truth) ** 2, np.ones_like(truth))
    return _ratio(total, n)


def rmse(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Root of the mean squared error, in units of the phenotype."""
    return np.sqrt(mse(truth, prediction, weights))


def mae(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Mean absolute error, in units of the phenotype."""
    total, n = weights.total(np.abs(prediction - truth), np.ones_like(truth))
    return _ratio(total, n)


def brier(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Mean squared error of a probability; undefined for scores outside 0 to 1."""
    if len(prediction) and (prediction.min() < 0 or prediction.max() > 1):
        return _undefined(weights)
    return mse(truth, prediction, weights)


def r2(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """1 - SSE / SST about the truth's own mean; may be negative, undefined for a constant truth."""
    if is_flat(truth):
        return _undefined(weights)
    x = truth - truth.mean()
    n, sx, sxx, sse = weights.total(np.ones_like(x), x, x * x, (prediction - truth) ** 2)
    sst = sxx - _ratio(sx**2, n)
    return 1 - _ratio(sse, np.where(sst > 1e-12 * sxx, sst, np.nan))


def auroc(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Chance that a positive is scored above a negative, ties counting half; undefined with one class."""
    order, first, after = _ties(prediction)
    positive = truth[order] > 0.5
    values = []
    for weight in weights.per_sample(order):
        pos, below = weight[:, positive], _running(weight * ~positive)
        # Negatives scored below, and half of those with the same score.
        beaten = (np.take(below, first[positive], axis=1) + np.take(below, after[positive], axis=1)) / 2
        values.append(_ratio(np.einsum("rn,rn->r", pos, beaten), pos.sum(1) * below[:, -1]))
    return np.concatenate(values)


def auprc(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Average precision, tied scores being one threshold; undefined with one class."""
    order, _, after = _ties(-prediction)
    positive = truth[order] > 0.5
    values = []
    for weight in weights.per_sample(order):
        pos, called, true = weight[:, positive], _running(weight), _running(weight * positive)
        both_classes = (true[:, -1] > 0) & (true[:, -1] < called[:, -1])
        at = after[positive]
        precision = np.take(true, at, axis=1) / np.maximum(np.take(called, at, axis=1), 1)
        values.append(_ratio(np.einsum("rn,rn->r", pos, precision), np.where(both_classes, true[:, -1], np.nan)))
    return np.concatenate(values)


def _ties(score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order of samples by rising ``score`` [n]; first and last (exclusive) place of the ties of each."""
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    return order, np.searchsorted(ranked, ranked, "left"), np.searchsorted(ranked, ranked, "right")


def _running(weight: np.ndarray) -> np.ndarray:
    """Running sums of ``weight`` [R, n] with a leading zero [R, n + 1]."""
    total = np.zeros((len(weight), weight.shape[1] + 1))
    np.cumsum(weight, axis=1, out=total[:, 1:])
    return total


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """``top / bottom``, NaN where the denominator is 0 or undefined."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom != 0)


def _undefined(weights: Weights) -> np.ndarray:
    return np.full(len(weights.count), np.nan)


@dataclass(frozen=True, eq=False)
class ProfileContext:
    """Controls and centers of n samples over G genes. A task adds fields that its own metrics need.

    Attributes:
        eval_control: Control that the true change is taken from [n, G]; none: metrics that need it are undefined.
        input_control: Control that the predicted change is taken from [n, G], made of other cells, so that truth and
            prediction share no noise; none: ``eval_control``.
        center: Mean of the treated training samples, e.g. on the sample's plate [n, G]; or none.
    """

    eval_control: np.ndarray | None = None
    input_control: np.ndarray | None = None
    center: np.ndarray | None = None

    @property
    def predicted_from(self) -> np.ndarray | None:
        """Control that a predicted change is taken from [n, G]."""
        return self.eval_control if self.input_control is None else self.input_control

    def shapes(self, n: int, n_genes: int) -> dict[str, tuple[int, ...]]:
        """The shape that each array must have, by name."""
        return dict.fromkeys(("eval_control", "input_control", "center"), (n, n_genes))

    def problems(self, n: int, n_genes: int) -> list[str]:
        """A sentence for each array of a wrong shape for n samples and G genes."""
        return [
            f"{name} has shape {np.shape(value)}, expected {shape}"
            for name, shape in self.shapes(n, n_genes).items()
            if (value := getattr(self, name)) is not None and np.shape(value) != shape
        ]


@dataclass(frozen=True, eq=False)
class Profiles:
    """Truth and prediction of n samples over G genes, with their controls.

    Attributes:
        truth: Measured expression [n, G].
        prediction: [n, G].
        context: Controls and centers.
    """

    truth: np.ndarray
    prediction: np.ndarray
    context: ProfileContext = field(default_factory=ProfileContext)

    def changes(self) -> tuple[np.ndarray, np.ndarray]:
        """True and predicted change from the controls [n, G] each; NaN where one of them is missing."""
        nan = np.full(self.truth.shape, np.nan)
        of_truth, of_prediction = (
            nan if x is None else x for x in (self.context.eval_control, self.context.predicted_from)
        )
        missing = np.isnan(self.truth) | np.isnan(self.prediction) | np.isnan(of_truth) | np.isnan(of_prediction)
        return (
            np.where(missing, np.nan, self.truth - of_truth),
            np.where(missing, np.nan, self.prediction - of_prediction),
        )


def pearson_delta(profiles: Profiles) -> np.ndarray:
    """Correlation over genes of true and predicted change from the control; undefined where there is no change."""
    return _correlation(profiles, profiles.context.eval_control, profiles.context.predicted_from)


def skill(profiles: Profiles) -> np.ndarray:
    """1 - MSE / MSE of the center, the latter as mean over all samples.

    0 is as good as the mean of the training perturbations (or of the plate), below 0 is worse.
    """
    if profiles.context.center is None:
        return np.full(len(profiles.truth), np.nan)
    error = mean_over_genes((profiles.prediction - profiles.truth) ** 2)
    of_center = mean_over_genes((profiles.context.center - profiles.truth) ** 2)
    defined = ~np.isnan(of_center)
    mean = of_center[defined].mean() if defined.any() else np.nan
    return np.where(defined, 1 - error / mean, np.nan) if mean > 0 else np.full(len(error), np.nan)


def mse_over_genes(profiles: Profiles) -> np.ndarray:
    """Mean squared error over genes, in squared units of expression."""
    return mean_over_genes((profiles.prediction - profiles.truth) ** 2)


def mae_over_genes(profiles: Profiles) -> np.ndarray:
    """Mean absolute error over genes, in units of expression."""
    return mean_over_genes(np.abs(profiles.prediction - profiles.truth))


def change_from_center(profiles: Profiles) -> np.ndarray:
    """Correlation of true and predicted change from the center; 0 where only the prediction equals the center."""
    return _correlation(profiles, profiles.context.center, profiles.context.center, no_change=0.0)


def _correlation(
    profiles: Profiles, origin: np.ndarray | None, predicted_origin: np.ndarray | None, no_change: float = np.nan
) -> np.ndarray:
    """Correlation over genes of truth and prediction, each taken from its origin [n].

    Args:
        profiles: n samples.
        origin: Control or center that the true change is taken from [n, G]; none: undefined.
        predicted_origin: The same for the predicted change.
        no_change: Value for a prediction that equals its origin.
    """
    truth, prediction = profiles.truth, profiles.prediction
    if origin is None or predicted_origin is None:
        return np.full(len(truth), np.nan)
    missing = np.isnan(truth) | np.isnan(prediction) | np.isnan(origin) | np.isnan(predicted_origin)
    x = np.where(missing, np.nan, truth - origin)
    y = np.where(missing, np.nan, prediction - predicted_origin)
    size = np.maximum(np.abs(truth), np.abs(origin))
    n = np.maximum((~missing).sum(1, keepdims=True), 1)
    x, y = x - np.nansum(x, 1, keepdims=True) / n, y - np.nansum(y, 1, keepdims=True) / n
    # What counts as no change depends on the rounding of levels, which are larger than the change.
    flat = FLAT * np.nanmax(np.where(missing, 0, size), axis=1) * np.sqrt(n[:, 0])
    norm_x, norm_y = np.sqrt(np.nansum(x * x, 1)), np.sqrt(np.nansum(y * y, 1))
    x_changes, y_changes = norm_x > flat, norm_y > flat
    value = np.where(x_changes & (~missing).any(1), no_change, np.nan)
    return np.divide(np.nansum(x * y, 1), norm_x * norm_y, out=value, where=x_changes & y_changes)


def mean_over_genes(values: np.ndarray) -> np.ndarray:
    """Mean of each row without its missing values [n]; NaN where all are missing."""
    n = (~np.isnan(values)).sum(1)
    return np.divide(np.nansum(values, 1), n, out=np.full(len(values), np.nan), where=n > 0)
