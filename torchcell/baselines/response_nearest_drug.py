"""What the most similar drug of the training part did, at the nearest dose, on the same line if it was there."""

from __future__ import annotations

from typing import Self

import numpy as np

from torchcell.baselines.base import Baseline, one_thread
from torchcell.baselines.group_means import group_means
from torchcell.baselines.response_baseline import change, log_dose, require_same_outputs
from torchcell.data.molecules import tanimoto
from torchcell.data.response import Response
from torchcell.graph.cell_graph import CellGraph

TIE = 1e-6
"""Doses and times that differ by less, in orders of magnitude and doublings, are one."""


class NearestDrug(Baseline):
    """Control plus the mean change of the nearest training samples.

    Among the samples of the line (of all lines, if it has none) the drug of the highest Tanimoto similarity is taken,
    which for a drug seen there is itself; of its samples those of the nearest log dose, then time; their mean, over all
    drugs and samples that tie. An unseen drug without a vector gets the line's mean change.
    """

    name = "nearest_drug"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.train, self.delta = train, change(train)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.train.genes)
        drug, molecules = record.drug_index, record.molecules
        theirs, table = self.train.drug_index, self.train.molecules
        assert molecules is not None
        assert table is not None
        with one_thread():
            like = tanimoto(molecules.vectors, table.vectors)
        # Drugs without a vector are like none but themselves.
        like = np.where(molecules.known[:, None] & table.known, like, -np.inf)
        like[molecules.id[:, None] == table.id] = np.inf
        overall = self.delta.mean(0)
        delta_nG = group_means(self.delta, self.train.cell_line, record.cell_line, overall)
        dose, time = log_dose(record), np.log2(np.maximum(record.time, 1))
        own_dose, own_time = log_dose(self.train), np.log2(np.maximum(self.train.time, 1))
        for row in range(len(record)):
            near = np.flatnonzero(self.train.cell_line == record.cell_line[row])
            near = near if len(near) else np.arange(len(self.train))
            similar = like[drug[row], theirs[near]]
            if similar.max() == -np.inf:
                continue
            near = near[similar == similar.max()]
            for theirs_own, mine in ((own_dose, dose[row]), (own_time, time[row])):
                gap = np.abs(theirs_own[near] - mine)
                near = near[gap <= gap.min() + TIE]
            delta_nG[row] = self.delta[near].mean(0)
        return (record.control + delta_nG).astype(np.float32)
