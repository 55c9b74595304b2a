"""log cosh: quadratic near 0, linear far out, and finite everywhere."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def log_cosh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(cosh(x)) = |x| + softplus(-2 |x|) - log 2; cosh itself overflows float32 at |x| = 89.

    Args:
        x: Residuals, any shape.

    Returns:
        The same shape.
    """
    size = x.abs()
    return size + torch.nn.functional.softplus(-2 * size) - math.log(2)


def log_cosh_loss(prediction: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Mean of log cosh of the residuals; targets that are NaN are missing and have no part in it.

    Args:
        prediction: Any shape, in the unit that makes a residual of 1 ordinary.
        target: The same shape; NaN where nothing was measured.

    Returns:
        A scalar; 0, with zero gradient, if every target is missing.
    """
    present = ~target.isnan()
    residual = torch.where(present, prediction - target.nan_to_num(), 0)
    return log_cosh(residual).sum() / present.sum().clamp(min=1)
