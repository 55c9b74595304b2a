"""How far predicted changes point away from the measured ones, as a loss."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def profile_distance(
    prediction_BG: Float[Tensor, "B G"],
    target_BG: Float[Tensor, "B G"],
    reference_BG: Float[Tensor, "B G"],
) -> Float[Tensor, ""]:
    """Mean over samples of 1 - Pearson over genes of (y - x, yhat - x); 1 is no skill.

    Args:
        prediction_BG: yhat, any units [B, G].
        target_BG: y; NaN is left out.
        reference_BG: x, what changes are taken against; NaN is left out.
    """
    held_BG = ~(torch.isnan(target_BG) | torch.isnan(reference_BG))
    count_B1 = held_BG.sum(1, keepdim=True).clamp(min=1)

    def centred(value_BG: Tensor) -> Tensor:
        change_BG = torch.where(held_BG, value_BG - reference_BG, 0.0)
        return (change_BG - change_BG.sum(1, keepdim=True) / count_B1) * held_BG

    similarity_B = torch.nn.functional.cosine_similarity(centred(prediction_BG), centred(target_BG), dim=1, eps=1e-6)
    some_B = held_BG.any(1)
    return ((1 - similarity_B) * some_B).sum() / some_B.sum().clamp(min=1)
