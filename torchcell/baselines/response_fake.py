"""Another control of the plate as if it had been treated: what the noise of shared controls scores by itself."""

from __future__ import annotations

import zlib
from typing import Self

import numpy as np

from torchcell.baselines.base import Baseline
from torchcell.baselines.response_baseline import require_same_outputs
from torchcell.data.response import Response
from torchcell.graph.cell_graph import CellGraph


class FakePerturbation(Baseline):
    """A control of a training sample of the same line and plate, drawn among those that are not the sample's own.

    Truth and prediction subtract the sample's own control, whose noise they share; this row tells what that is worth.
    Where there is none to draw, as on a plate with one control for all its samples or on an unknown plate, it has
    nothing to say (NaN): the sample's own control would be the row ``no_change`` under another name.

    Args:
        seed: Of the draw, with the sample's name.
    """

    name = "fake_perturbation"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.genes, place = train.genes, _places(train)
        self.drawn_from: dict[tuple[str, str], np.ndarray] = {}
        for key in set(place):
            rows = np.array([other == key for other in place])
            self.drawn_from[key] = np.unique(train.control[rows], axis=0)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.genes)
        found = np.full(record.control.shape, np.nan, dtype=np.float32)
        for row, key in enumerate(_places(record)):
            every = self.drawn_from.get(key, found[:0])
            others = every[(every != record.control[row]).any(1)]
            if len(others):
                # By the sample's name, so that the order of the samples plays no part.
                rng = np.random.default_rng([self.seed, zlib.crc32(str(record.sample_id[row]).encode())])
                found[row] = others[rng.integers(len(others))]
        return found


def _places(record: Response) -> list[tuple[str, str]]:
    return list(zip(record.cell_line.tolist(), record.plate.tolist(), strict=True))
