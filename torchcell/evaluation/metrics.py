"""Metrics over samples, and over the genes of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from torchcell.evaluation.bootstrap import Weights

if TYPE_CHECKING:
    from torchcell.cells.metrics import CellPairs


FLAT = 1e-6
"""A vector whose sd is below this share of its largest magnitude is constant but for float32 rounding."""


def is_flat(x: np.ndarray) -> bool:
    """Whether ``x`` [n] is constant but for rounding (an empty vector is)."""
    return len(x) == 0 or bool(np.std(x) <= FLAT * np.max(np.abs(x)))


def pearson(truth: np.ndarray, prediction: np.ndarray, weights: Weights) -> np.ndarray:
    """Correlation of truth and prediction; undefined when either is constant."""
    if is_flat(truth) or is_flat(prediction):
        return _undefined(weights)
    # Centred first: the sums below then lose no digits to a large mean.
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
    """Mean squared error of a probability; undefined for scores outside 0 to 1, which are none."""
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
        pos, called, found = weight[:, positive], _running(weight), _running(weight * positive)
        both = (found[:, -1] > 0) & (found[:, -1] < called[:, -1])
        at = after[positive]
        precision = np.take(found, at, axis=1) / np.maximum(np.take(called, at, axis=1), 1)
        values.append(_ratio(np.einsum("rn,rn->r", pos, precision), np.where(both, found[:, -1], np.nan)))
    return np.concatenate(values)


def _ties(score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples by rising ``score`` [n]; where the run of equal scores of each begins, and ends (exclusive)."""
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


MOST_CHANGED = 100
"""Genes that count as most up (or down) for the precision of a prediction's top."""


@dataclass(frozen=True, eq=False)
class Profiles:
    """Truth and prediction of n samples over G genes, and what changes are taken against.

    Attributes:
        truth: Measured expression [n, G].
        prediction: [n, G].
        reference: The sample's control [n, G]; none: nothing that needs one is defined.
        replicate: Change from control in an independent replicate [n, G], rows of NaN where there is none; or none.
        centre: Mean of the treated training samples of the sample's plate, or source, or line [n, G]; or none. Of
            single cells the mean of the training perturbations.
        other_reference: A control made of other cells than ``reference``, which the predicted change is taken against
            [n, G], so that truth and prediction share no noise; none: the same control.
        significant: Genes that truly changed, bool [n, G]; or none.
        own: Columns of the sample's perturbed genes, -1 pads [n] or [n, K]; or none.
        context: Samples are told apart from those of the same name only, e.g. of their cell line [n]; none: from all.
        cells: Cells of each sample, and the control cells that a prediction moves; or none.
    """

    truth: np.ndarray
    prediction: np.ndarray
    reference: np.ndarray | None = None
    replicate: np.ndarray | None = None
    centre: np.ndarray | None = None
    other_reference: np.ndarray | None = None
    significant: np.ndarray | None = None
    own: np.ndarray | None = None
    context: np.ndarray | None = None
    cells: CellPairs | None = None

    @property
    def predicted_reference(self) -> np.ndarray | None:
        """What the predicted change is taken against [n, G]."""
        return self.reference if self.other_reference is None else self.other_reference

    def changes(self) -> tuple[np.ndarray, np.ndarray]:
        """True and predicted change from the reference [n, G] each; NaN where one of them is missing."""
        nothing = np.full(self.truth.shape, np.nan)
        mine, other = (nothing if x is None else x for x in (self.reference, self.predicted_reference))
        missing = np.isnan(self.truth) | np.isnan(self.prediction) | np.isnan(mine) | np.isnan(other)
        return np.where(missing, np.nan, self.truth - mine), np.where(missing, np.nan, self.prediction - other)

    def own_columns(self) -> np.ndarray:
        """Columns of each sample's perturbed genes, -1 pads, int64 [n, K]."""
        own = np.full(len(self.truth), -1) if self.own is None else np.asarray(self.own)
        return own.reshape(len(self.truth), -1).astype(np.int64)


def pearson_delta(profiles: Profiles) -> np.ndarray:
    """Correlation over genes of true and predicted change from the reference; undefined for no change."""
    return _correlation(profiles, profiles.reference, profiles.predicted_reference)


def pearson_delta_perturbed(profiles: Profiles) -> np.ndarray:
    """The same from the centre of the training perturbations: what all perturbations share earns nothing.

    A prediction that is the centre itself, as that of the mean over training perturbations, scores 0: it is the
    strongest of the simple predictions, and would drop out of every comparison if it had no value.
    """
    return _from_centre(profiles)


def pearson_delta_plate(profiles: Profiles) -> np.ndarray:
    """The same from the plate's centre: what is shared by all that was treated on a plate earns nothing; 0 likewise."""
    return _from_centre(profiles)


def skill(profiles: Profiles) -> np.ndarray:
    """1 - MSE / MSE of the centre, the latter over all samples; the mean over samples is the skill of all.

    0 is as good as the mean of the training perturbations (or the plate's), below 0 is worse.
    """
    if profiles.centre is None:
        return np.full(len(profiles.truth), np.nan)
    error = _mean((profiles.prediction - profiles.truth) ** 2)
    of_centre = _mean((profiles.centre - profiles.truth) ** 2)
    held = ~np.isnan(of_centre)
    whole = of_centre[held].mean() if held.any() else np.nan
    return np.where(held, 1 - error / whole, np.nan) if whole > 0 else np.full(len(error), np.nan)


def mse_over_genes(profiles: Profiles) -> np.ndarray:
    """Mean squared error over genes, in squared units of expression."""
    return _mean((profiles.prediction - profiles.truth) ** 2)


def mae_over_genes(profiles: Profiles) -> np.ndarray:
    """Mean absolute error over genes, in units of expression."""
    return _mean(np.abs(profiles.prediction - profiles.truth))


def pearson2_top(profiles: Profiles, k: int, published: bool = False) -> np.ndarray:
    """Squared correlation of true and predicted change over the ``k`` genes of largest change in a replicate.

    Args:
        profiles: n samples.
        k: Genes.
        published: Choose the genes on the sample itself, as published tables do.
    """
    true, predicted = _top(profiles, k, published)
    x, y = true - _mean(true)[:, None], predicted - _mean(predicted)[:, None]
    norm = np.sqrt(np.nansum(x * x, 1) * np.nansum(y * y, 1))
    flat = (np.nansum(x * x, 1) <= FLAT**2 * np.nansum(true**2, 1)) | (
        np.nansum(y * y, 1) <= FLAT**2 * np.nansum(predicted**2, 1)
    )
    return np.divide(np.nansum(x * y, 1), norm, out=np.full(len(x), np.nan), where=~flat & (norm > 0)) ** 2


def r2_top(profiles: Profiles, k: int, published: bool = False) -> np.ndarray:
    """Share of the variance of the true change explained over the same ``k`` genes; may be negative."""
    true, predicted = _top(profiles, k, published)
    error, total = np.nansum((true - predicted) ** 2, 1), np.nansum((true - _mean(true)[:, None]) ** 2, 1)
    held = (~np.isnan(true)).any(1)
    return 1 - np.divide(error, total, out=np.full(len(true), np.nan), where=held & (total > 0))


def precision_top(profiles: Profiles, k: int, up: bool) -> np.ndarray:
    """Share of the ``k`` genes predicted most up (or down) that are among the 100 most up (down) in a replicate.

    Ties in the prediction share their places, so that a constant scores chance.
    """
    sign = 1 if up else -1
    _, predicted = profiles.changes()
    found = np.full(len(predicted), np.nan)
    if profiles.replicate is None:
        return found
    for i, (guess, seen) in enumerate(zip(sign * predicted, sign * profiles.replicate, strict=True)):
        held = np.flatnonzero(~np.isnan(guess) & ~np.isnan(seen))
        if len(held) <= MOST_CHANGED:
            continue
        among = np.zeros(len(held), dtype=bool)
        among[np.argpartition(-seen[held], MOST_CHANGED - 1)[:MOST_CHANGED]] = True
        least = np.partition(guess[held], len(held) - k)[len(held) - k]
        above, tied = guess[held] > least, guess[held] == least
        found[i] = (among[above].sum() + (k - above.sum()) * among[tied].mean()) / k
    return found


def _from_centre(profiles: Profiles) -> np.ndarray:
    """Correlation of true and predicted change from the centre; 0 where only the prediction does not change."""
    return _correlation(profiles, profiles.centre, profiles.centre, no_change=0.0)


def _correlation(
    profiles: Profiles, origin: np.ndarray | None, predicted_origin: np.ndarray | None, no_change: float = np.nan
) -> np.ndarray:
    """Correlation over genes of truth and prediction, each taken from its origin [n].

    Args:
        profiles: n samples.
        origin: What the true change is taken from [n, G]; none: undefined.
        predicted_origin: Likewise of the predicted change.
        no_change: Value of a prediction that is its origin.
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
    # Rounding of the levels, not of the change, bounds what counts as no change.
    flat = FLAT * np.nanmax(np.where(missing, 0, size), axis=1) * np.sqrt(n[:, 0])
    norm_x, norm_y = np.sqrt(np.nansum(x * x, 1)), np.sqrt(np.nansum(y * y, 1))
    changes, predicted = norm_x > flat, norm_y > flat
    found = np.where(changes & (~missing).any(1), no_change, np.nan)
    return np.divide(np.nansum(x * y, 1), norm_x * norm_y, out=found, where=changes & predicted)


def _top(profiles: Profiles, k: int, published: bool) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted change on the ``k`` chosen genes [n, k] each; NaN rows where none can be chosen."""
    true, predicted = profiles.changes()
    chosen_by = true if published else profiles.replicate
    k = min(k, true.shape[1])
    if chosen_by is None:
        return np.full((len(true), k), np.nan), np.full((len(true), k), np.nan)
    size = np.where(np.isnan(chosen_by) | np.isnan(true), -1.0, np.abs(chosen_by))
    top = np.argpartition(-size, k - 1, axis=1)[:, :k]
    defined = np.take_along_axis(size, top, 1) >= 0
    true, predicted = (np.where(defined, np.take_along_axis(each, top, 1), np.nan) for each in (true, predicted))
    return true, predicted


def _mean(values: np.ndarray) -> np.ndarray:
    held = (~np.isnan(values)).sum(1)
    return np.divide(np.nansum(values, 1), held, out=np.full(len(values), np.nan), where=held > 0)
