"""What all treated samples of a plate share, seen by the training part alone."""

from __future__ import annotations

import numpy as np

from torchcell.data.response import Response

FEWEST = 5
"""Training samples that a mean is taken of; with fewer the next wider group stands in."""


def plate_centre(record: Response, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean treated expression of the training samples on each sample's plate, float32 [n, G], and whose it is.

    A sample that is in training is left out of its own mean. Where a plate has fewer than five others, those of the
    source and line stand in, then those of the line, then all.

    Args:
        record: n samples.
        train: Which are in training, a mask [n].

    Returns:
        The means, and whether they are of the sample's own line, bool [n].
    """
    source = np.zeros(len(record), dtype="<U1") if record.source is None else record.source
    wider = [record.plate, np.char.add(np.char.add(source, "|"), record.cell_line), record.cell_line]
    centre = np.full(record.treated.shape, np.nan, dtype=np.float32)
    open_, of_line = np.ones(len(record), dtype=bool), np.zeros(len(record), dtype=bool)
    for groups in [*wider, np.zeros(len(record), dtype=np.int8)]:
        mean, count = _others(record.treated, groups, train)
        last = groups.dtype == np.int8
        filled = open_ & (count >= (1 if last else FEWEST))
        centre[filled] = mean[filled]
        open_ &= ~filled
        if groups is record.cell_line:
            of_line = ~open_
    return centre, of_line


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
