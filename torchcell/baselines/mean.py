"""The mean of the training part: what no skill looks like."""

from __future__ import annotations

from typing import Self

import numpy as np

from torchcell.baselines.base import Baseline
from torchcell.data.screen import Screen
from torchcell.graph.cell_graph import CellGraph


class Mean(Baseline):
    """The training mean of each phenotype, for every set."""

    name = "mean"

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        held = ~np.isnan(train.phenotype)
        total = np.where(held, train.phenotype, 0.0).sum(0, dtype=np.float64)
        self.mean_T = np.where(held.any(0), total / np.maximum(held.sum(0), 1), np.nan)
        return self

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Baseline``."""
        return np.tile(self.mean_T.astype(np.float32), (len(record), 1))
