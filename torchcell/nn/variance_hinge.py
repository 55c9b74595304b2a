"""A penalty on dimensions in which the nodes of a kind hardly differ."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def variance_hinge(z_ND: Float[Tensor, "N D"], bounds: Sequence[int], least: float = 1.0) -> Float[Tensor, ""]:
    r"""Mean over kinds and dimensions of max(0, least - sd), the sd being that over the nodes of the kind.

    The variance term of VICReg (Bardes, Ponce and LeCun, ICLR 2022, arXiv:2105.04906), one batch being a kind.

    Args:
        z_ND: Vectors, the nodes ordered by kind [N, D].
        bounds: Kind k occupies the rows bounds[k] to bounds[k + 1]; one with fewer than 2 nodes has no sd.
        least: The sd below which a dimension is penalised, in the units of z.

    Returns:
        A scalar: ``least`` when all nodes of each kind are one point, 0 when no dimension is poor.
    """
    # The small number keeps the root's slope finite where a kind has collapsed to one point.
    lacking = [
        torch.relu(least - (z_ND[first:last].var(0) + 1e-8).sqrt()).mean()
        for first, last in itertools.pairwise(bounds)
        if last - first > 1
    ]
    return torch.stack(lacking).mean() if lacking else z_ND.sum() * 0
