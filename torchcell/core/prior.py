"""``Prior``: a fitted predictor whose residual a network learns, and its out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchcell.core.predictor import Predictor
from torchcell.core.spec import Spec
from torchcell.io.state import as_tensors, from_tensors

FOLDS = 4
"""Of the training part, made by the method of the split itself."""


def out_of_fold(
    make: Callable[[], Predictor], train: Any, val: Any, graph: Any, folds: Iterator[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Predictions of each training sample by a predictor that was fitted without it, float32 [n, T].

    In sample, a prior knows the noise of what it was fitted to, and a network that reads it learns to trust it too
    much.

    Args:
        make: An unfitted predictor.
        train: The training part.
        val: Chooses hyper-parameters.
        graph: See ``Predictor.fit``.
        folds: Which samples to fit on and which to predict, masks [n] each.

    Returns:
        NaN for a sample that no fold predicts, or that the predictor has nothing to say of.
    """
    found = np.full(np.shape(train.target), np.nan, dtype=np.float32)
    for fitted_on, held_out in folds:
        predictor = make().fit(train.subset(fitted_on), val, graph)
        found[held_out] = predictor.predict(train.subset(held_out).blind())
    return found


@dataclass(frozen=True, eq=False)
class Prior:
    """A predictor that was fitted on the whole training part.

    Attributes:
        name: Of its config among the baselines.
        predictor: Fitted.
        mean_T: Mean of the training targets, from which its predictions are taken; it stands in where the predictor
            has nothing to say.
    """

    name: str
    predictor: Predictor
    mean_T: np.ndarray

    def centered(self, prediction: np.ndarray) -> Tensor:
        """What a prediction [n, T] adds to the mean, float32; 0 where there is none."""
        return torch.from_numpy(np.nan_to_num(prediction - self.mean_T).astype(np.float32))

    def predict(self, record: Any) -> Tensor:
        """What it predicts of a record, taken from the mean, float32 [n, T]."""
        return self.centered(self.predictor.predict(record.blind()))

    def residual_spec(self, spec: Spec, target: np.ndarray, out_of_fold: Tensor) -> Spec:
        """The spec of a network that predicts what the prior leaves: in its units, around 0.

        Args:
            spec: Of the data.
            target: Of the training part [n, T].
            out_of_fold: See ``out_of_fold``, taken from the mean [n, T].
        """
        left = torch.from_numpy(np.asarray(target, np.float64) - self.mean_T) - out_of_fold
        scale = (left.square().nanmean(0)).sqrt().clamp(min=1e-8).float()
        return replace(spec, center=torch.zeros_like(spec.center), scale=scale)

    def to_plain(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return as_tensors({"name": self.name, "mean": self.mean_T, "state": self.predictor.state_dict()})

    @classmethod
    def from_plain(cls, plain: dict[str, Any], unfitted: Callable[[], Predictor], graph: Any) -> Prior:
        """The inverse of ``to_plain``."""
        held = from_tensors(plain)
        return cls(held["name"], unfitted().load_state_dict(held["state"], graph), held["mean"])
