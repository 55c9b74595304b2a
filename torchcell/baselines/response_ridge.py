"""Ridge regression of expression, or of its change, on the molecule, the line and the dose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from torchcell.baselines.base import Baseline
from torchcell.baselines.group_means import group_means
from torchcell.baselines.response_baseline import (
    change_score,
    log_dose,
    molecule_rows,
    plate_means,
    require_same_outputs,
)
from torchcell.baselines.ridge_path import RidgePath
from torchcell.data.response import Response
from torchcell.graph.cell_graph import CellGraph

ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class _Ridge(Baseline):
    """``offset`` plus a ridge of what is left on ``features``; alpha is chosen on val by the change from control.

    Args:
        alphas: Penalties to choose from, in samples.
    """

    def __init__(self, alphas: Sequence[float | int] = ALPHAS) -> None:
        self.alphas = tuple(alphas)

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.train, self.lines, self.mean_G = train, np.unique(train.cell_line), train.treated.mean(0, dtype=np.float64)
        blocks = self.blocks(train)
        # Each block weighs the same: the mean squared length of its centred rows is 1.
        sizes = [np.square(block - block.mean(0)).sum(1).mean() for block in blocks]
        self.weights = [size**-0.5 if size > 0 else 0.0 for size in sizes]
        self.path = RidgePath(self.features(train), train.treated - self.offset(train))
        offset = self.offset(val)
        self.alpha = self.path.choose(
            self.features(val), self.alphas, lambda found: change_score(val, offset + found) if len(val) else 0.0
        )
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.train.genes)
        found = self.path.predict(self.features(record), self.alpha)
        return (self.offset(record) + found).astype(np.float32)

    def features(self, record: Response) -> np.ndarray:
        """The weighted blocks side by side, float64 [n, F]."""
        blocks = zip(self.blocks(record), self.weights, strict=True)
        return np.concatenate([weight * block for block, weight in blocks], axis=1)

    def blocks(self, record: Response) -> list[np.ndarray]:
        """Molecule, line as one of those in train (zeros for another), and log dose [n, .] each."""
        line = (record.cell_line[:, None] == self.lines).astype(np.float64)
        return [molecule_rows(record), line, log_dose(record)[:, None]]

    def offset(self, record: Response) -> np.ndarray:
        """What the ridge adds to [n, G]."""
        raise NotImplementedError


class RidgeChange(_Ridge):
    """Control plus a ridge for the change."""

    name = "ridge_change"

    def offset(self, record: Response) -> np.ndarray:
        """The sample's control."""
        return record.control.astype(np.float64)


class RidgeLevel(_Ridge):
    """A ridge for the expression itself, which never sees the control."""

    name = "ridge_level"

    def offset(self, record: Response) -> np.ndarray:
        """Nothing."""
        return np.zeros(record.control.shape)


class LineMeanRidge(_Ridge):
    """The line's mean treated expression plus a ridge on the molecule alone for what is left."""

    name = "line_mean_ridge"

    def blocks(self, record: Response) -> list[np.ndarray]:
        """The molecule."""
        return [molecule_rows(record)]

    def offset(self, record: Response) -> np.ndarray:
        """Mean treated expression on the line; over all lines for an unseen one."""
        return group_means(self.train.treated, self.train.cell_line, record.cell_line, self.mean_G)


class PlateMeanRidge(LineMeanRidge):
    """The plate's mean treated expression, see ``plate_means``, plus a ridge on the molecule for what is left."""

    name = "plate_mean_ridge"

    def offset(self, record: Response) -> np.ndarray:
        """Mean treated expression on the line and plate."""
        return plate_means(self.train, record)
