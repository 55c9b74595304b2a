"""Losses that several models use, and the schedule of their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchcell.io.configurable import configurable


def log_cosh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(cosh(x)) = |x| + softplus(-2 |x|) - log 2; cosh itself overflows float32 at |x| = 89.

    Args:
        x: Residuals, any shape.

    Returns:
        The same shape.
    """
    size = x.abs()
    return size + torch.nn.functional.softplus(-2 * size) - math.log(2)


def list_loss(score_BT: Float[Tensor, "B T"], lists_LK: Int[Tensor, "L K"]) -> Float[Tensor, ""]:
    """Mean over lists of -log of the first one's share of exp(score) among its list; log K at constant scores.

    Args:
        score_BT: Scores.
        lists_LK: Positions in the flattened scores, see ``Batch.lists``.
    """
    score_LK = listed(score_BT, lists_LK)
    return (score_LK.logsumexp(1) - score_LK[:, 0]).sum() / max(len(lists_LK), 1)


def reciprocal_ranks(score_BT: Float[Tensor, "B T"], lists_LK: Int[Tensor, "L K"]) -> Float[Tensor, " L"]:
    """1 / rank of the first one in its list; ties count half. Arguments are those of ``list_loss``."""
    score_LK = listed(score_BT, lists_LK)
    first_L1 = score_LK[:, :1]
    return 1 / (1 + (score_LK > first_L1).sum(1) + ((score_LK == first_L1).sum(1) - 1) / 2)


def listed(
    score_BT: Float[Tensor, "B T"], lists_LK: Int[Tensor, "L K"], absent: float = -math.inf
) -> Float[Tensor, "L K"]:
    """The scores of lists, ``absent`` where a list is shorter than others."""
    return score_BT.flatten()[lists_LK.clamp(min=0)].masked_fill(lists_LK < 0, absent)


@dataclass(frozen=True)
class _TwoTerms:
    """Moves weight from one term to another over the first part ``transition`` of the epochs.

    Args:
        transition: Share of the epochs after which the weights no longer change, in (0, 1].
        first: The first term.
        then: The term that follows it.
        others: Weights of further terms, the same in every epoch.

    Source: schedules of DANGO's training, Zhang et al., bioRxiv 2020.11.26.400739.
    """

    transition: float = 0.5
    first: str = "reconstruction"
    then: str = "phenotype"
    others: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.transition <= 1:
            raise ValueError(f"transition is a share of the epochs in (0, 1], not {self.transition}")

    def __call__(self, epoch: int, max_epochs: int) -> dict[str, float]:
        """The weights of epoch 0, 1, ..., max_epochs - 1."""
        if max_epochs < 1:
            raise ValueError(f"a schedule over epochs needs max_epochs of at least 1, not {max_epochs}")
        then = self._then(min(epoch / (self.transition * max_epochs), 1.0))
        return {self.first: 1.0 - then, self.then: then, **self.others}

    def _then(self, progress: float) -> float:
        """Weight of the later term for the progress of the transition, in [0, 1]."""
        raise NotImplementedError


@configurable
class PreThenPost(_TwoTerms):
    """The first term alone, then the other alone: (1, 0) before the transition and (0, 1) from it on."""

    def _then(self, progress: float) -> float:
        return float(progress >= 1)


@configurable
class LinearUntilUniform(_TwoTerms):
    """From the first term alone, linearly to equal weights: (1, 0) to (1/2, 1/2)."""

    def _then(self, progress: float) -> float:
        return progress / 2


@configurable
class LinearUntilFlipped(_TwoTerms):
    """From the first term alone, linearly to the other alone: (1, 0) to (0, 1)."""

    def _then(self, progress: float) -> float:
        return progress


def profile_distance(
    prediction_BG: Float[Tensor, "B G"],
    target_BG: Float[Tensor, "B G"],
    control_BG: Float[Tensor, "B G"],
) -> Float[Tensor, ""]:
    """Mean over samples of 1 - Pearson over genes of (y - x, yhat - x); 1 is no skill.

    Args:
        prediction_BG: yhat, any units [B, G].
        target_BG: y; NaN is left out.
        control_BG: x, the control that changes are taken from; NaN is left out.
    """
    measured_BG = ~(torch.isnan(target_BG) | torch.isnan(control_BG))
    count_B1 = measured_BG.sum(1, keepdim=True).clamp(min=1)

    def centered(value_BG: Tensor) -> Tensor:
        change_BG = torch.where(measured_BG, value_BG - control_BG, 0.0)
        return (change_BG - change_BG.sum(1, keepdim=True) / count_B1) * measured_BG

    similarity_B = torch.nn.functional.cosine_similarity(centered(prediction_BG), centered(target_BG), dim=1, eps=1e-6)
    defined_B = measured_BG.any(1)
    return ((1 - similarity_B) * defined_B).sum() / defined_B.sum().clamp(min=1)
