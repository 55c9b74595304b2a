"""The control of a treated well, from the control wells of its own plate and never from another's."""

from __future__ import annotations

from typing import Literal

import numpy as np

from torchcell.data.errors import InputError, some

Match = Literal["centroid", "paired"]
"""The mean of a plate's control wells, or one of them for each well."""


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
    if match not in ("centroid", "paired"):
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
