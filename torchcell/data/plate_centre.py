"""What all treated samples of a plate share, seen by the training part alone."""

from __future__ import annotations

import numpy as np

from torchcell.data.plate_controls import line_plates
from torchcell.data.response import Response

FEWEST = 5
"""Training samples that a plate's or a source's mean is taken of; with fewer the next wider group stands in."""


def plate_centre(record: Response, train: np.ndarray) -> np.ndarray:
    """Mean treated expression of the training samples of each sample's line on its plate, float32 [n, G].

    A sample that is in training is left out of its own mean. Where a plate has fewer than five others, those of the
    line from the same source stand in, then all of the line; a line without any has no centre (NaN).

    Args:
        record: n samples.
        train: Which are in training, a mask [n].
    """
    centre = np.full(record.treated.shape, np.nan, dtype=np.float32)
    groups = [(line_plates(record.plate, record.cell_line), FEWEST), (record.cell_line, 1)]
    if record.source is not None:
        groups.insert(1, (line_plates(record.source, record.cell_line), FEWEST))
    empty = np.ones(len(record), dtype=bool)
    for names, fewest in groups:
        mean, count = _others(record.treated, names, train)
        filled = empty & (count >= fewest)
        centre[filled] = mean[filled]
        empty &= ~filled
    return centre


def _others(values: np.ndarray, groups: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the training rows of the same group but the row itself, and how many there are [n]."""
    _, row = np.unique(groups, return_inverse=True)
    n_groups = int(row.max()) + 1
    total = np.zeros((n_groups, values.shape[1]))
    np.add.at(total, row[train], values[train])
    count = np.bincount(row[train], minlength=n_groups)
    left = count[row] - train
    rest = total[row] - np.where(train[:, None], values, 0.0)
    return (rest / np.maximum(left, 1)[:, None]).astype(np.float32), left
