"""Cells drawn from the controls as if they were perturbed: what no biology at all scores."""

from __future__ import annotations

import zlib
from typing import Self

import numpy as np

from torchcell.baselines.base import Baseline
from torchcell.baselines.cells_baseline import require_same_genes
from torchcell.data.conditions import Conditions
from torchcell.graph.cell_graph import CellGraph


class FakePerturbation(Baseline):
    """The mean of cells drawn, with replacement, from the other half of the group's controls.

    As many cells as the middle training condition has. A score within this row's interval is no skill; if the row
    itself shows skill, truth and prediction share noise. Where that half is one cell there is nothing to draw, and it
    has nothing to say (NaN): all draws would be the row ``no_change`` under another name.

    Args:
        seed: Of the draw, with the condition's name.
    """

    name = "fake_perturbation"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, train: Conditions, val: Conditions, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.genes, self.n_cells = train.genes, int(np.median(train.sizes))
        return self

    def predict(self, record: Conditions) -> np.ndarray:
        """See ``Baseline``."""
        require_same_genes(record, self.genes)
        drawn = [self._draw(record, i) for i in range(len(record))]
        ptr = np.cumsum([0, *(len(cells) for cells in drawn)], dtype=np.int64)
        return record.mean(ptr, np.concatenate(drawn))

    def _draw(self, record: Conditions, condition: int) -> np.ndarray:
        """Positions of the drawn cells, none of a single one; they depend on the condition's name, not on its place."""
        name = str(record.sample_id[condition])
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        # Names order the cells: a blind record holds them at other positions.
        cells = record.input_controls(condition)
        cells = cells[np.argsort(record.cells.sample_id[cells], kind="stable")]
        if len(cells) < 2:
            return np.empty(0, dtype=np.int64)
        return rng.choice(cells, self.n_cells).astype(np.int64)
