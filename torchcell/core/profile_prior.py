"""``ProfilePrior``: one weighted sum of predicted profiles for all outputs; its weights say what carries it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.linalg

from torchcell.core.predictor import one_thread


class ProfileColumns(NamedTuple):
    """Columns of n samples, what they shall add up to, and how much each sample counts.

    Attributes:
        columns_FnG: Predicted profiles, float32.
        target_nG: Float32; NaN is left out.
        weight_n: Of the squared error of each sample.
    """

    columns_FnG: np.ndarray
    target_nG: np.ndarray
    weight_n: np.ndarray


@dataclass(frozen=True, eq=False)
class ProfilePrior:
    r"""y = sum over the columns of w e, with profiles e [G] and one w for all outputs.

    A column is a whole prediction already, and w is what it is worth; one w an output would be fitted to few samples.

    Attributes:
        names: Of the columns, ``source: what``.
        weight_F: Float64; 0 for a column of zeros.
        penalty: Chosen on validation.
        sources: Names of the sources, in the order of the columns.
        spread_S: Root mean square over training samples and outputs of what each source adds.
    """

    names: list[str]
    weight_F: np.ndarray
    penalty: float
    sources: list[str]
    spread_S: np.ndarray

    def predict(self, columns_FnG: np.ndarray, which: Sequence[str] | None = None) -> np.ndarray:
        """Weighted sums float32 [n, G], of all columns or of those of the sources ``which``."""
        chosen = [
            i for i, name in enumerate(self.names) if self.weight_F[i] and (which is None or _source(name) in which)
        ]
        found = np.zeros(columns_FnG.shape[1:], dtype=np.float32)
        for i in chosen:
            found += np.float32(self.weight_F[i]) * columns_FnG[i]
        return found

    def contributions(self) -> dict[str, float]:
        """``spread_S`` by source."""
        return dict(zip(self.sources, self.spread_S.tolist(), strict=True))


def fit_profiles(
    names: Sequence[str], folds: Sequence[ProfileColumns], val: ProfileColumns, penalties: Sequence[float]
) -> tuple[ProfilePrior, list[ProfilePrior]]:
    """Fit to all folds, and to all but each.

    Args:
        names: Of the columns, ``source: what``.
        folds: Of training samples, none of which an expert was fitted to; a fold is left out together.
        val: Its weighted squared error chooses the penalty; without samples the largest serves.
        penalties: To choose from, as a fraction of a column's mean square.

    Returns:
        The fit to all folds, and for each fold the fit to the others.
    """
    with one_thread():
        sums = [_Sums.of(fold) for fold in folds]
        nothing, held = _Sums.zeros(len(names)), _Sums.of(val)
        whole = _added(nothing, *sums)
        each = sorted(penalties, reverse=True)
        weights = [_solved(whole, penalty) for penalty in each]
        errors = [held.error(weight) if held.total else 0.0 for weight in weights]
        best = int(np.argmin(errors))
        sources = list(dict.fromkeys(_source(name) for name in names))
        place = np.array([sources.index(_source(name)) for name in names])

        def prior(sums: _Sums, weight: np.ndarray) -> ProfilePrior:
            spread = [sums.size(np.where(place == s, weight, 0)) for s in range(len(sources))]
            return ProfilePrior(list(names), weight, each[best], sources, np.array(spread))

        rest = [_added(nothing, *(one for one in sums if one is not left_out)) for left_out in sums]
        return prior(whole, weights[best]), [prior(one, _solved(one, each[best])) for one in rest]


def _source(name: str) -> str:
    return name.split(": ")[0]


class _Sums(NamedTuple):
    """Products of columns and targets over values, each weighted, and the sum of weights."""

    gram_FF: np.ndarray
    product_F: np.ndarray
    square: float
    total: float

    @classmethod
    def of(cls, part: ProfileColumns) -> _Sums:
        """Sum in blocks of samples, in float64 between them."""
        width = len(part.columns_FnG)
        found = cls.zeros(width)
        for start in range(0, len(part.weight_n), 64):
            rows = slice(start, start + 64)
            columns, target = part.columns_FnG[:, rows], part.target_nG[rows]
            measured = ~np.isnan(target)
            root = (np.sqrt(part.weight_n[rows])[:, None] * measured).astype(np.float32)
            wide, aim = (columns * root).reshape(width, -1), (np.where(measured, target, 0) * root).ravel()
            one = cls(
                (wide @ wide.T).astype(np.float64),
                (wide @ aim).astype(np.float64),
                float(aim @ aim),
                float((root.astype(np.float64) ** 2).sum()),
            )
            found = _added(found, one)
        return found

    @classmethod
    def zeros(cls, width: int) -> _Sums:
        """Of no values."""
        return cls(np.zeros((width, width)), np.zeros(width), 0.0, 0.0)

    def error(self, weight: np.ndarray) -> float:
        """Mean squared error of the weighted sum."""
        return (self.square - 2 * weight @ self.product_F + weight @ self.gram_FF @ weight) / self.total

    def size(self, weight: np.ndarray) -> float:
        """Root mean square of the weighted sum."""
        return float(np.sqrt(max(weight @ self.gram_FF @ weight, 0) / max(self.total, 1e-12)))


def _added(*sums: _Sums) -> _Sums:
    return _Sums(*(sum(part[1:], start=part[0]) for part in zip(*sums, strict=True)))


def _solved(sums: _Sums, penalty: float) -> np.ndarray:
    """Weights of the ridge whose penalty counts in mean squares of each column; 0 for a column of zeros."""
    scale = np.sqrt(np.diag(sums.gram_FF) / max(sums.total, 1e-12))
    used = np.flatnonzero(scale > 1e-9 * max(float(scale.max(initial=0)), 1e-30))
    weight = np.zeros(len(scale))
    if len(used):
        over = np.outer(scale[used], scale[used]) * sums.total
        gram = sums.gram_FF[np.ix_(used, used)] / over + penalty * np.eye(len(used))
        product = sums.product_F[used] / (scale[used] * sums.total)
        weight[used] = scipy.linalg.solve(gram, product, assume_a="pos") / scale[used]
    return weight
