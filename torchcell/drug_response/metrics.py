"""Metrics of drug response, each sample scored over genes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from torchcell.evaluation import metrics
from torchcell.evaluation.metrics import FLAT, ProfileContext, Profiles, change_from_center, mean_over_genes
from torchcell.evaluation.registry import (
    MAE_OVER_GENES,
    MSE_OVER_GENES,
    SKILL,
    Metric,
    MetricSet,
    profile_correlation,
    register,
)

TOP = (20, 40, 80)
"""Genes of largest change that ``@k`` metrics look at."""
MOST_CHANGED = 100
"""Genes that count as most up (or down) for the precision of a prediction's top."""


@dataclass(frozen=True, eq=False)
class ResponseContext(ProfileContext):
    """What changes of treated samples are taken against.

    Attributes:
        replicate: Change from control in an independent replicate [n, G], rows of NaN where there is none; or none.
    """

    replicate: np.ndarray | None = None

    def shapes(self, n: int, n_genes: int) -> dict[str, tuple[int, ...]]:
        """See ``ProfileContext``."""
        return super().shapes(n, n_genes) | {"replicate": (n, n_genes)}


def pearson_delta_plate(profiles: Profiles) -> np.ndarray:
    """The same from the plate's center: what is shared by all that was treated on a plate earns nothing; 0 likewise."""
    return change_from_center(profiles)


def pearson2_top(profiles: Profiles, k: int, published: bool = False) -> np.ndarray:
    """Squared correlation of true and predicted change over the ``k`` genes of largest change in a replicate.

    Args:
        profiles: n samples.
        k: Genes.
        published: Choose the genes on the sample itself, as published tables do.
    """
    true, predicted = _top(profiles, k, published)
    x, y = true - mean_over_genes(true)[:, None], predicted - mean_over_genes(predicted)[:, None]
    norm = np.sqrt(np.nansum(x * x, 1) * np.nansum(y * y, 1))
    flat = (np.nansum(x * x, 1) <= FLAT**2 * np.nansum(true**2, 1)) | (
        np.nansum(y * y, 1) <= FLAT**2 * np.nansum(predicted**2, 1)
    )
    return np.divide(np.nansum(x * y, 1), norm, out=np.full(len(x), np.nan), where=~flat & (norm > 0)) ** 2


def r2_top(profiles: Profiles, k: int, published: bool = False) -> np.ndarray:
    """Share of the variance of the true change explained over the same ``k`` genes; may be negative."""
    true, predicted = _top(profiles, k, published)
    error, total = np.nansum((true - predicted) ** 2, 1), np.nansum((true - mean_over_genes(true)[:, None]) ** 2, 1)
    measured = (~np.isnan(true)).any(1)
    return 1 - np.divide(error, total, out=np.full(len(true), np.nan), where=measured & (total > 0))


def precision_top(profiles: Profiles, k: int, up: bool) -> np.ndarray:
    """Share of the ``k`` genes predicted most up (or down) that are among the 100 most up (down) in a replicate.

    Ties in the prediction share their places, so that a constant scores chance.
    """
    sign = 1 if up else -1
    _, predicted = profiles.changes()
    found = np.full(len(predicted), np.nan)
    replicate = _replicate(profiles)
    if replicate is None:
        return found
    for i, (guess, seen) in enumerate(zip(sign * predicted, sign * replicate, strict=True)):
        measured = np.flatnonzero(~np.isnan(guess) & ~np.isnan(seen))
        if len(measured) <= MOST_CHANGED:
            continue
        among = np.zeros(len(measured), dtype=bool)
        among[np.argpartition(-seen[measured], MOST_CHANGED - 1)[:MOST_CHANGED]] = True
        least = np.partition(guess[measured], len(measured) - k)[len(measured) - k]
        above, tied = guess[measured] > least, guess[measured] == least
        found[i] = (among[above].sum() + (k - above.sum()) * among[tied].mean()) / k
    return found


def _top(profiles: Profiles, k: int, published: bool) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted change on the ``k`` chosen genes [n, k] each; NaN rows where none can be chosen."""
    true, predicted = profiles.changes()
    chosen_by = true if published else _replicate(profiles)
    k = min(k, true.shape[1])
    if chosen_by is None:
        return np.full((len(true), k), np.nan), np.full((len(true), k), np.nan)
    size = np.where(np.isnan(chosen_by) | np.isnan(true), -1.0, np.abs(chosen_by))
    top = np.argpartition(-size, k - 1, axis=1)[:, :k]
    defined = np.take_along_axis(size, top, 1) >= 0
    true, predicted = (np.where(defined, np.take_along_axis(each, top, 1), np.nan) for each in (true, predicted))
    return true, predicted


def _replicate(profiles: Profiles) -> np.ndarray | None:
    return getattr(profiles.context, "replicate", None)


RESPONSE = register(
    MetricSet(
        "response",
        (
            Metric(
                "pearson_delta",
                metrics.pearson_delta,
                1,
                "undefined",
                True,
                "correlation over all genes of true and predicted change from the control; a constant scores "
                "well, since both changes hold the control",
                "genes",
            ),
            Metric(
                "pearson_delta_plate",
                pearson_delta_plate,
                1,
                0.0,
                True,
                "the same after the plate's treated mean is removed; that mean itself scores 0",
                "genes",
            ),
            SKILL,
            MSE_OVER_GENES,
            MAE_OVER_GENES,
            *(
                Metric(
                    f"pearson2_de@{k}",
                    partial(pearson2_top, k=k),
                    1,
                    "undefined",
                    True,
                    f"squared correlation of changes on the {k} genes that changed most in a replicate",
                    "genes",
                )
                for k in TOP
            ),
            *(
                Metric(
                    f"r2_top@{k}",
                    partial(r2_top, k=k),
                    1,
                    0.0,
                    True,
                    f"share of the variance of the change explained on the {k} genes that changed most in a replicate",
                    "genes",
                )
                for k in TOP
            ),
            *(
                Metric(
                    f"precision_{way}@20",
                    partial(precision_top, k=20, up=way == "up"),
                    1,
                    "undefined",
                    True,
                    f"share of the 20 genes predicted most {way} that are among the 100 most {way} in a replicate",
                    "genes",
                )
                for way in ("up", "down")
            ),
            *(
                Metric(
                    f"pearson2_de@{k}_published",
                    partial(pearson2_top, k=k, published=True),
                    1,
                    "undefined",
                    True,
                    f"as published: the {k} genes are chosen on the sample they are scored on, so that a "
                    f"constant scores high",
                    "genes",
                    ("constant", "gene_mean"),
                )
                for k in TOP
            ),
            *(
                Metric(
                    f"r2_top@{k}_published",
                    partial(r2_top, k=k, published=True),
                    1,
                    0.0,
                    True,
                    f"as published: the {k} genes are chosen on the sample they are scored on, where its own "
                    f"noise lies too",
                    "genes",
                    ("constant", "gene_mean"),
                )
                for k in TOP
            ),
        ),
        primary=("pearson_delta_plate", "pearson_delta"),
        calibration=("skill",),
        beside=("pearson_delta_plate", "pearson_delta", "skill"),
        streaming=profile_correlation("control", "plate"),
        per_gene=True,
    )
)
"""How a drug response is scored. A held-out cell line has no plate with a training mean, and no change from it: there
``pearson_delta`` decides."""
