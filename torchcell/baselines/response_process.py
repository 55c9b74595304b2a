"""A Gaussian process on what drug, structure, dose, line and control tell; nothing of it is a network."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch

from torchcell.baselines.base import Baseline
from torchcell.baselines.group_means import group_means
from torchcell.baselines.response_baseline import change, log_dose, plate_means, require_same_outputs
from torchcell.data.response import Response
from torchcell.graph.cell_graph import CellGraph
from torchcell.nn.response_process import ResponseProcess, Wells


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
