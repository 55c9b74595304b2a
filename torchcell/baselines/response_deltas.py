"""The sample's own control, with nothing added to it, or the mean change that the line or the drug had in train."""

from __future__ import annotations

from typing import Self

import numpy as np

from torchcell.baselines.base import Baseline
from torchcell.baselines.group_means import group_means
from torchcell.baselines.response_baseline import change, require_same_outputs
from torchcell.data.response import Response
from torchcell.graph.cell_graph import CellGraph


class NoChange(Baseline):
    """The control: a drug does nothing."""

    name = "no_change"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        return record.control.astype(np.float32)


class _MeanDelta(Baseline):
    """Control plus the mean change of the training samples of one group; of all where the group has none."""

    field: str

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.genes, self.names, self.delta = train.genes, getattr(train, self.field), change(train)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.genes)
        delta_nG = group_means(self.delta, self.names, getattr(record, self.field), self.delta.mean(0))
        return (record.control + delta_nG).astype(np.float32)


class MeanDeltaLine(_MeanDelta):
    """Control plus the line's mean change; the mean over all lines for an unseen one."""

    name = "mean_delta_line"
    field = "cell_line"


class MeanDeltaDrug(_MeanDelta):
    """Control plus the drug's mean change over lines and doses; the mean over all drugs for an unseen one."""

    name = "mean_delta_drug"
    field = "drug"
