"""``Prior``: a fitted predictor beside a network, and its out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from torchcell.core.predictor import Predictor
from torchcell.io.errors import InputError
from torchcell.io.state import as_tensors, from_tensors

FOLDS = 4
"""Folds of the training part, assigned by the method of the split."""

USES = ("residual", "average")
"""What a network beside a prior learns: the residual of its out-of-fold predictions, or the target itself."""


class InnerPart(NamedTuple):
    """One inner fold of the training part.

    Attributes:
        train: What is fitted.
        held_out: What is then predicted, of which ``train`` knows nothing.
        at: Where that stands among all samples that have a prior [m].
    """

    train: Any
    held_out: Any
    at: np.ndarray


def out_of_fold(
    make: Callable[[], Predictor], parts: Iterable[InnerPart], val: Any, graph: Any, shape: tuple[int, int]
) -> np.ndarray:
    """Predictions of training samples by a predictor that was fitted without them, float32 [N, T].

    In sample, a prior has fitted the noise of the targets, and a network beside it would learn to trust it too much.

    Args:
        make: An unfitted predictor.
        parts: The inner folds.
        val: Chooses hyper-parameters.
        graph: See ``Predictor.fit``.
        shape: Of all samples that have a prior, and outputs.

    Returns:
        NaN for a sample that no fold predicts, or for which the predictor has no prediction.
    """
    prediction = np.full(shape, np.nan, dtype=np.float32)
    for part in parts:
        prediction[part.at] = make().fit(part.train, val, graph).predict(part.held_out.blind())
    return prediction


class Calibration(NamedTuple):
    """Log-odds of each output from a score: intercept + slope score, the slope 0 or more, so that ranks stay.

    Attributes:
        intercept_T: Float64.
        slope_T: Float64.
    """

    intercept_T: np.ndarray
    slope_T: np.ndarray

    @classmethod
    def fit(cls, score_nT: np.ndarray, label_nT: np.ndarray) -> Self:
        """Logistic regression of each output (Platt, 1999); the scores as they are where labels have one class only.

        Args:
            score_nT: Of samples that the predictor was not fitted to; NaN is left out.
            label_nT: 0, 1 or NaN.
        """
        from sklearn.linear_model import LogisticRegression

        intercept_T, slope_T = np.zeros(score_nT.shape[1]), np.ones(score_nT.shape[1])
        for t in range(len(slope_T)):
            known = np.isfinite(score_nT[:, t]) & ~np.isnan(label_nT[:, t])
            score, label = score_nT[known, t].astype(np.float64), label_nT[known, t]
            center, spread = (score.mean(), score.std()) if known.any() else (0.0, 0.0)
            if len(np.unique(label)) < 2:
                continue
            fitted = LogisticRegression(C=10.0).fit(((score - center) / (spread or 1.0))[:, None], label)
            slope_T[t] = max(float(fitted.coef_[0, 0]), 0.0) / (spread or 1.0)
            intercept_T[t] = float(fitted.intercept_[0]) - slope_T[t] * center
        return cls(intercept_T, slope_T)

    def __call__(self, score_nT: np.ndarray) -> np.ndarray:
        """Log-odds, float32 [n, T]."""
        return (self.intercept_T + self.slope_T * score_nT).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Prior:
    """A predictor that was fitted on the whole training part.

    Attributes:
        name: Of its config in ``conf/baselines``.
        predictor: The fitted predictor.
        gives_columns: Whether the network also reads the columns that its prediction is made of.
        calibration: Makes log-odds of what the predictor says of a binary target; none: it is in the target's units.
    """

    name: str
    predictor: Predictor
    gives_columns: bool = False
    calibration: Calibration | None = None

    def predict(self, record: Any) -> Tensor:
        """Predictions for a record in the target's units, log-odds for a binary target, NaN where it has none; then its
        columns, if it gives them, float32 [n, T + F].
        """
        blind = record.blind()
        said = np.array(self.predictor.predict(blind), dtype=np.float32)
        if self.calibration is not None:
            said = self.calibration(said)
        if self.gives_columns:
            columns = self.predictor.columns(blind)
            if columns is None:
                raise InputError(
                    f"model.residual: the prior {self.name} is not made of columns; model.prior=stack is, or set "
                    "model.residual=null"
                )
            said = np.concatenate([said, columns], axis=1)
        return torch.from_numpy(said)

    def calibrated(self, score_nT: np.ndarray, label_nT: np.ndarray) -> Prior:
        """The prior of a binary target with log-odds, see ``Calibration.fit``."""
        return replace(self, calibration=Calibration.fit(score_nT, label_nT))

    def to_plain(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        plain = {"name": self.name, "state": self.predictor.state_dict(), "gives_columns": self.gives_columns}
        if self.calibration is not None:
            plain["calibration"] = self.calibration._asdict()
        return as_tensors(plain)

    @classmethod
    def from_plain(cls, plain: dict[str, Any], unfitted: Callable[[], Predictor], graph: Any) -> Prior:
        """The inverse of ``to_plain``."""
        values = from_tensors(plain)
        predictor = unfitted().load_state_dict(values["state"], graph)
        made = values.get("calibration")
        return cls(
            values["name"],
            predictor,
            bool(values.get("gives_columns", False)),
            None if made is None else Calibration(**{name: np.asarray(made[name]) for name in Calibration._fields}),
        )
