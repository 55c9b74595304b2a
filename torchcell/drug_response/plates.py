"""Controls of each sample from the wells of its plate, and the mean of a plate's treated wells."""

from __future__ import annotations

import numpy as np

from torchcell.drug_response.record import Response
from torchcell.io.errors import InputError, some

MATCHES = ("centroid", "paired")


def matched_controls(
    values: np.ndarray,
    plate: np.ndarray,
    is_control: np.ndarray,
    match: str = "centroid",
    seed: int = 0,
    how_told: str = "flag its wells in is_control",
) -> np.ndarray:
    """Give each well the control of its plate.

    Args:
        values: Expression of all wells [n, G].
        plate: Plate of each [n]; where lines share a plate, see ``line_plates``.
        is_control: Whether a well was given the vehicle alone, bool [n].
        match: ``centroid`` or ``paired``; a control well is paired with another one where there is another.
        seed: Of the pairs; plates are drawn in the order of their names, so that the order of the rows plays no part
            but within a plate.
        how_told: What the error about a plate without control wells says to do for its vehicle, in the reader's terms.

    Returns:
        float32 [n, G].

    Raises:
        InputError: A plate without control wells, named; another ``match``.
    """
    if match not in MATCHES:
        raise InputError(f"no way to match controls called {match!r}; it is centroid or paired")
    bare = sorted(set(np.unique(plate).tolist()) - set(np.unique(plate[is_control]).tolist()))
    if bare:
        raise InputError(
            f"{len(bare)} plate(s) without control wells: {some(bare)}; for the vehicle {how_told}, or leave those "
            "plates out"
        )
    matched = np.empty(values.shape, dtype=np.float32)
    rng = np.random.default_rng(seed)
    for name in np.unique(plate).tolist():
        wells = np.flatnonzero(plate == name)
        controls = wells[is_control[wells]]
        if match == "centroid":
            matched[wells] = values[controls].mean(0, dtype=np.float64)
        else:
            matched[wells] = values[_drawn(wells, controls, rng)]
    return matched


def line_plates(plate: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Plates [n] of which each holds one line: where several share a plate, the line is part of its name."""
    lines: dict[str, set[str]] = {}
    for one, other in zip(plate.tolist(), line.tolist(), strict=True):
        lines.setdefault(one, set()).add(other)
    pairs = zip(plate.tolist(), line.tolist(), strict=True)
    return np.array([f"{one} ({other})" if len(lines[one]) > 1 else one for one, other in pairs])


def _drawn(wells: np.ndarray, controls: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One control well for each well; a control well takes the next one round."""
    chosen = controls[rng.integers(len(controls), size=len(wells))]
    ring = dict(zip(controls.tolist(), np.roll(controls, -1).tolist(), strict=True))
    return np.array([ring.get(well, other) for well, other in zip(wells.tolist(), chosen.tolist(), strict=True)])


FEWEST = 5
"""Training samples that a plate's or a source's mean is taken of; with fewer the next wider group stands in."""


def plate_center(record: Response, train: np.ndarray) -> np.ndarray:
    """Mean treated expression of the training samples of each sample's line on its plate, float32 [n, G].

    A sample that is in training is left out of its own mean. Where a plate has fewer than five others, those of the
    line from the same source stand in, then all of the line; a line without any has no center (NaN).

    Args:
        record: n samples.
        train: Which are in training, a mask [n].
    """
    center = np.full(record.treated.shape, np.nan, dtype=np.float32)
    groups = [(line_plates(record.plate, record.cell_line), FEWEST), (record.cell_line, 1)]
    if record.source is not None:
        groups.insert(1, (line_plates(record.source, record.cell_line), FEWEST))
    empty = np.ones(len(record), dtype=bool)
    for names, fewest in groups:
        mean, count = _others(record.treated, names, train)
        filled = empty & (count >= fewest)
        center[filled] = mean[filled]
        empty &= ~filled
    return center


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
