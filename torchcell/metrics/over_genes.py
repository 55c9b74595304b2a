"""Metrics of one sample over its genes: ``Profiles`` -> [n].

A missing gene (NaN in truth or prediction) is left out of its sample. A sample on which the metric is
undefined is NaN; the evaluator counts it.

Genes chosen by their own noise flatter: a constant beats a real replicate when the genes of largest change are
chosen on the sample that is scored. So each ``@k`` metric chooses its genes on an independent replicate, and is
undefined without one; the form that others publish is kept under ``*_published``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchcell.metrics.scalar import FLAT

if TYPE_CHECKING:
    from torchcell.metrics.cells_sets import CellPairs

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
