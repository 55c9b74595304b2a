"""Fitted baselines of drug response: ridge regression and a Gaussian process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch

from torchcell.core.baseline import Baseline, RidgePath, group_means
from torchcell.drug_response.baselines import (
    change,
    change_score,
    log_dose,
    molecule_rows,
    plate_means,
    require_same_outputs,
)
from torchcell.drug_response.models.gaussian_process import ResponseProcess, Wells
from torchcell.drug_response.record import Response
from torchcell.graph.cell_graph import CellGraph


class GaussianProcess(Baseline):
    """Control, its line's mean change, and a Gaussian process on the rest of the change, see ``ResponseProcess``.

    Where the plate is known its mean treated expression, see ``plate_means``, stands in place of all but what the
    process tells of the treatment. It is what a model with ``head=process`` starts from. The process's weights are
    those of the largest marginal likelihood on the training samples, so val is not looked at.

    Args:
        most: Training samples it holds, drawn at random where there are more; its time grows with the cube.
        seed: Of the draw.
    """

    name = "gaussian_process"

    def __init__(self, most: int = 4000, seed: int = 0) -> None:
        self.most, self.seed = most, seed

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        assert train.molecules is not None
        self.train, self.lines, self.change = train, np.unique(train.cell_line), change(train)
        held = np.sort(np.random.default_rng(self.seed).permutation(len(train))[: self.most])
        vectors = torch.from_numpy(np.asarray(train.molecules.vectors, dtype=np.float32))
        known, wells = torch.from_numpy(train.molecules.known), self._wells(train)[torch.from_numpy(held)]
        self.process = ResponseProcess(vectors, known, wells)
        left = train.treated - self._start(train)
        self.process.fit(torch.from_numpy(left[held]), self.seed)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.train.genes)
        with torch.no_grad():
            by_treatment, by_control = (told.numpy() for told in self.process(self._wells(record)))
        plate = plate_means(self.train, record)
        start = np.where(np.isnan(plate), self._start(record) + by_control, plate)
        return (start + by_treatment).astype(np.float32)

    def _start(self, record: Response) -> np.ndarray:
        """Control plus the line's mean change; the mean over all lines for an unseen one."""
        return record.control + group_means(self.change, self.train.cell_line, record.cell_line, self.change.mean(0))

    def _wells(self, record: Response) -> Wells:
        at = np.searchsorted(self.lines, record.cell_line).clip(max=len(self.lines) - 1)
        line = torch.from_numpy(np.where(self.lines[at] == record.cell_line, at, -1))
        hours = np.log2(np.maximum(record.time.astype(np.float64), 1.0))
        treatment = torch.from_numpy(np.stack([log_dose(record), hours], axis=1).astype(np.float32))
        theirs, lines = self.train.control, self.train.cell_line
        off = record.control - group_means(theirs, lines, record.cell_line, theirs.mean(0, dtype=np.float64))
        departure = torch.from_numpy(off.astype(np.float32))
        return Wells(torch.from_numpy(record.drug_index), line, treatment, departure)


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
