"""A Gaussian process on what drug, structure, dose and line tell beyond the plate; nothing of it is a network."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch

from torchcell.baselines.base import Baseline
from torchcell.baselines.response_baseline import log_dose, plate_means, require_same_outputs
from torchcell.data.plate_centre import plate_centre
from torchcell.data.response import Response
from torchcell.graph.cell_graph import CellGraph
from torchcell.nn.response_process import ResponseProcess, Wells


class PlateMeanProcess(Baseline):
    """The plate's mean treated expression, see ``plate_means``, plus a Gaussian process, see ``ResponseProcess``.

    The process is fitted to the training samples' departures from the other training samples of their plate. Its
    weights are of the largest marginal likelihood, so val is not looked at.

    Args:
        most: Training samples it holds, drawn at random where there are more; its time grows with the cube.
        seed: Of the draw.
    """

    name = "plate_mean_process"

    def __init__(self, most: int = 4000, seed: int = 0) -> None:
        self.most, self.seed = most, seed

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        assert train.molecules is not None
        self.train, self.lines = train, np.unique(train.cell_line)
        told = np.nan_to_num(train.treated - plate_centre(train, np.ones(len(train), dtype=bool)))
        held = np.sort(np.random.default_rng(self.seed).permutation(len(train))[: self.most])
        vectors = torch.from_numpy(np.asarray(train.molecules.vectors, dtype=np.float32))
        known, wells = torch.from_numpy(train.molecules.known), self._wells(train)[torch.from_numpy(held)]
        self.process = ResponseProcess(vectors, known, wells, len(train.genes))
        self.process.fit(torch.from_numpy(told[held]), self.seed)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.train.genes)
        with torch.no_grad():
            told = self.process(self._wells(record)).numpy()
        return (plate_means(self.train, record) + told).astype(np.float32)

    def _wells(self, record: Response) -> Wells:
        at = np.searchsorted(self.lines, record.cell_line).clip(max=len(self.lines) - 1)
        line = torch.from_numpy(np.where(self.lines[at] == record.cell_line, at, -1))
        hours = np.log2(np.maximum(record.time.astype(np.float64), 1.0))
        treatment = torch.from_numpy(np.stack([log_dose(record), hours], axis=1).astype(np.float32))
        return Wells(torch.from_numpy(record.drug_index), line, treatment)
