"""Distances between sets of cells. A prediction in ``Results`` is a mean, so that its cells are control cells moved by
the predicted change: what they show of a cell's spread is the controls'."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.distance import cdist

from torchcell.data.conditions import Conditions
from torchcell.data.matrices import dense
from torchcell.metrics.over_genes import Profiles

MOST = 64
"""Cells of a condition, and controls beside them, that predictions are held against: more cost much and say little."""
ROWS = 2048
"""Cells whose distances are held at a time."""


def energy_distance(x_nG: np.ndarray, y_mG: np.ndarray) -> float:
    r"""E-distance of two sets of cells, 2 E|X - Y| - E|X - X'| - E|Y - Y'|, in units of expression.

    Euclidean distances; the means run over all pairs, a cell and itself among them, so that equal sets have 0, which is
    the least. Small sets of one kind of cell stand apart by about E|X - X'| (1/n + 1/m). (Székely and Rizzo 2013;
    Peidli et al. 2024, scPerturb.)

    Args:
        x_nG: Cells [n, G].
        y_mG: Cells [m, G].
    """
    if not len(x_nG) or not len(y_mG):
        return float("nan")
    apart = 2 * _mean_distance(x_nG, y_mG) - _mean_distance(x_nG, x_nG) - _mean_distance(y_mG, y_mG)
    return max(apart, 0.0)


def _mean_distance(x_nG: np.ndarray, y_mG: np.ndarray) -> float:
    total = sum(float(cdist(x_nG[i : i + ROWS], y_mG).sum()) for i in range(0, len(x_nG), ROWS))
    return total / (len(x_nG) * len(y_mG))


@dataclass(frozen=True, eq=False)
class CellPairs:
    """Cells of n conditions, and control cells of the half that predictions start from.

    Attributes:
        control: [n_i, G] each, float32.
        measured: [m_i, G] each, float32.
    """

    control: Sequence[np.ndarray]
    measured: Sequence[np.ndarray]
    _known: dict[int, tuple[np.ndarray, float]] = field(default_factory=dict)

    @classmethod
    def drawn(cls, record: Conditions, most: int = MOST, seed: int = 0) -> CellPairs:
        """So many cells of each condition, and as many of its controls, by the condition's name.

        Args:
            record: With its cells; not blind.
            most: Cells of either kind.
            seed: Of the draw.
        """
        control: list[np.ndarray] = []
        measured: list[np.ndarray] = []
        for i, name in enumerate(record.sample_id.tolist()):
            rng = np.random.default_rng([seed, zlib.crc32(str(name).encode())])
            for found, cells in ((control, record.input_controls(i)), (measured, record.members(i))):
                at = np.sort(rng.choice(cells, min(most, len(cells)), replace=False))
                found.append(dense(record.cells.X[at]))
        return cls(control, measured)

    def distance(self, i: int, change_G: np.ndarray) -> float:
        """E-distance of the measured cells of condition i to its controls, all moved by ``change_G``, as
        ``energy_distance``.

        What no change alters, distances within either set and all products of cells, is computed once.
        """
        x_SG, y_RG = self.control[i], self.measured[i]
        if i not in self._known:
            within = _mean_distance(x_SG, x_SG) + _mean_distance(y_RG, y_RG)
            self._known[i] = cdist(x_SG, y_RG, "sqeuclidean"), within
        square_SR, within = self._known[i]
        # |x + d - y|^2 = |x - y|^2 + 2 d.x - 2 d.y + |d|^2
        x_S, y_R = x_SG @ change_G, y_RG @ change_G
        moved_SR = square_SR + 2 * (x_S[:, None] - y_R) + change_G @ change_G
        return max(2 * float(np.sqrt(np.maximum(moved_SR, 0)).mean()) - within, 0.0)


def predicted_cells(record: Conditions, prediction: np.ndarray, n_cells: int = MOST, seed: int = 0) -> np.ndarray:
    """Control cells moved by the predicted change, float32 [n, n_cells, G]; below 0 there is no expression.

    Args:
        record: n conditions with their controls.
        prediction: Mean expression [n, G].
        n_cells: A condition; drawn with replacement where there are fewer controls.
        seed: Of the draw, with the condition's name.
    """
    change, sets = prediction - record.other_control, []
    for i, name in enumerate(record.sample_id.tolist()):
        rng, cells = np.random.default_rng([seed, zlib.crc32(str(name).encode())]), record.input_controls(i)
        drawn = rng.choice(cells, n_cells, replace=len(cells) < n_cells)
        sets.append(np.maximum(dense(record.cells.X[drawn]) + change[i], 0).astype(np.float32))
    return np.stack(sets)


def e_distance(profiles: Profiles) -> np.ndarray:
    """E-distance of control cells moved by the predicted change to the measured cells, in units of expression.

    Over all genes. Undefined where there are no cells to hold it against, as in pseudobulk, and where the prediction
    lacks a gene. Both sets are small, so that cells of one kind still stand apart, by the same for every system.
    """
    found, pairs = np.full(len(profiles.truth), np.nan), profiles.cells
    if pairs is None or profiles.predicted_reference is None:
        return found
    change = profiles.prediction - profiles.predicted_reference
    for i in np.flatnonzero(np.isfinite(change).all(1)).tolist():
        found[i] = pairs.distance(i, change[i])
    return found
