"""Levels of expression that know nothing of the drug: one number, the gene's mean, that on the line, on the plate."""

from __future__ import annotations

from typing import Self

import numpy as np

from torchcell.baselines.base import Baseline
from torchcell.baselines.group_means import group_means
from torchcell.baselines.response_baseline import plate_means, require_same_outputs
from torchcell.data.response import Response
from torchcell.graph.cell_graph import CellGraph


class Constant(Baseline):
    """One number for every gene of every sample: the mean of all treated values in train."""

    name = "constant"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.mean = float(train.treated.mean(dtype=np.float64))
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        return np.full(record.treated.shape, self.mean, dtype=np.float32)


class GeneMean(Baseline):
    """Mean treated expression of each gene."""

    name = "gene_mean"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.genes, self.mean_G = train.genes, train.treated.mean(0, dtype=np.float64)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.genes)
        return np.tile(self.mean_G.astype(np.float32), (len(record), 1))


class LineGeneMean(Baseline):
    """Mean treated expression of each gene on the sample's line; on a line without training samples, over all lines."""

    name = "line_gene_mean"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.train, self.mean_G = train, train.treated.mean(0, dtype=np.float64)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.train.genes)
        level_nG = group_means(self.train.treated, self.train.cell_line, record.cell_line, self.mean_G)
        return level_nG.astype(np.float32)


class PlateGeneMean(Baseline):
    """Mean treated expression of each gene on the sample's line and plate, see ``plate_means``."""

    name = "plate_gene_mean"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.train = train
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.train.genes)
        return plate_means(self.train, record).astype(np.float32)
