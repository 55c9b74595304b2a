"""``Prior``: a fitted predictor beside a network, and its out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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


def out_of_fold(
    make: Callable[[], Predictor], train: Any, val: Any, graph: Any, folds: Iterator[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Predictions of each training sample by a predictor that was fitted without it, float32 [n, T].

    In sample, a prior has fitted the noise of the targets, and a network beside it would learn to trust it too much.

    Args:
        make: An unfitted predictor.
        train: The training part.
        val: Chooses hyper-parameters.
        graph: See ``Predictor.fit``.
        folds: Samples to fit on and samples to predict, masks [n] each.

    Returns:
        NaN for a sample that no fold predicts, or for which the predictor has no prediction.
    """
    prediction = np.full(np.shape(train.target), np.nan, dtype=np.float32)
    for fitted_on, held_out in folds:
        predictor = make().fit(train.subset(fitted_on), val, graph)
        prediction[held_out] = predictor.predict(train.subset(held_out).blind())
    return prediction


@dataclass(frozen=True, eq=False)
class Prior:
    """A predictor that was fitted on the whole training part.

    Attributes:
        name: Of its config in ``conf/baselines``.
        predictor: The fitted predictor.
        gives_columns: Whether the network also reads the columns that its prediction is made of.
    """

    name: str
    predictor: Predictor
    gives_columns: bool = False

    def predict(self, record: Any) -> Tensor:
        """Predictions for a record in the target's units, NaN where it has none; then its columns, if it gives them,
        float32 [n, T + F].
        """
        blind = record.blind()
        said = np.asarray(self.predictor.predict(blind), dtype=np.float32)
        if self.gives_columns:
            columns = self.predictor.columns(blind)
            if columns is None:
                raise InputError(
                    f"model.residual: the prior {self.name} is not made of columns; model.prior=stack is, or set "
                    "model.residual=null"
                )
            said = np.concatenate([said, columns], axis=1)
        return torch.from_numpy(said)

    def to_plain(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return as_tensors(
            {"name": self.name, "state": self.predictor.state_dict(), "gives_columns": self.gives_columns}
        )

    @classmethod
    def from_plain(cls, plain: dict[str, Any], unfitted: Callable[[], Predictor], graph: Any) -> Prior:
        """The inverse of ``to_plain``."""
        values = from_tensors(plain)
        predictor = unfitted().load_state_dict(values["state"], graph)
        return cls(values["name"], predictor, bool(values.get("gives_columns", False)))
