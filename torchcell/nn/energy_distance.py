"""How far two samples of cells lie apart as distributions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def energy_distance(x_BSG: Float[Tensor, "B S G"], y_BRG: Float[Tensor, "B R G"]) -> Float[Tensor, " B"]:
    r"""Energy distance of B pairs of samples.

    .. math::
        E = 2 \, \overline{|x_i - y_j|} - \overline{|x_i - x_j|} - \overline{|y_i - y_j|}

    with means over all pairs, those of a cell with itself too (the V-statistic), so that E is never negative and 0 for
    equal samples. The gradient of a distance 0 is 0.

    Args:
        x_BSG: S cells each [B, S, G], any units.
        y_BRG: R cells each.

    Returns:
        [B], in the same units.

    Source: Székely and Rizzo, J. Stat. Plan. Inference 143, 2013, eq. 1.1.
    """
    between, within_x, within_y = (_mean_distance(*pair) for pair in ((x_BSG, y_BRG), (x_BSG, x_BSG), (y_BRG, y_BRG)))
    return 2 * between - within_x - within_y


def mean_energy_distance(x_BSG: Float[Tensor, "B S G"], y_BRG: Float[Tensor, "B R G"]) -> Float[Tensor, ""]:
    """Mean over the pairs whose y has no NaN; 0 without any."""
    held_B = ~y_BRG.isnan().flatten(1).any(1)
    distance_B = energy_distance(x_BSG, torch.where(held_B[:, None, None], y_BRG, 0.0))
    return (distance_B * held_B).sum() / held_B.sum().clamp(min=1)


def _mean_distance(x_BSG: Tensor, y_BRG: Tensor) -> Tensor:
    # Differences written out would be S times as large as the cells; torch's matrix form loses digits.
    return torch.cdist(x_BSG, y_BRG, compute_mode="donot_use_mm_for_euclid_dist").mean((1, 2))
