"""The log-sum-exp of scores q.k, some rows at a time and computed again in backward: never N x M."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchcell.nn.spmm import full_precision

ROWS = 512
"""Rows whose scores exist at once."""


def log_sum_exp(q_ND: Float[Tensor, "N D"], k_MD: Float[Tensor, "M D"], scale: float) -> Float[Tensor, " N"]:
    r"""What the softmax of each row would be divided by, as a logarithm.

    .. math::
        \ell_i = \log \sum_j \exp(s \, q_i \cdot k_j)

    Rows and columns may be different subsets of tokens. Backward keeps q, k and the result:
    :math:`P_{ij} = g_i \exp(s \, q_i \cdot k_j - \ell_i)`, :math:`dQ = s P K`, :math:`dK = s P^T Q`.

    Args:
        q_ND: Rows [N, D].
        k_MD: Columns [M, D].
        scale: s, usually one over the root of the head's width.

    Returns:
        [N], float32 for half precisions; minus infinity where there is no column.
    """
    return _LogSumExp.apply(full_precision(q_ND), full_precision(k_MD), scale)


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_ND, k_MD, scale):
        lse_N = q_ND.new_full((len(q_ND),), -torch.inf)
        for rows, score_RM in _scores(q_ND, k_MD, scale):
            # A row of scores that are all -inf would otherwise become NaN.
            top_R = score_RM.amax(1).clamp(min=torch.finfo(score_RM.dtype).min)
            lse_N[rows] = score_RM.sub_(top_R[:, None]).exp_().sum(1).log_().add_(top_R)
        ctx.save_for_backward(q_ND, k_MD, lse_N)
        ctx.scale = scale
        return lse_N

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_N):
        q_ND, k_MD, lse_N = ctx.saved_tensors
        grad_q, grad_k = torch.zeros_like(q_ND), torch.zeros_like(k_MD)
        scaled_N = grad_N * ctx.scale
        for rows, score_RM in _scores(q_ND, k_MD, ctx.scale):
            share_RM = score_RM.sub_(lse_N[rows, None]).exp_().mul_(scaled_N[rows, None])
            with torch.autocast(q_ND.device.type, enabled=False):
                grad_q[rows] = share_RM @ k_MD
                grad_k.addmm_(share_RM.T, q_ND[rows])
        return grad_q, grad_k, None


def _scores(q_ND: Tensor, k_MD: Tensor, scale: float) -> Iterator[tuple[slice, Tensor]]:
    """The scores of ROWS rows after the other, always in the same memory."""
    if not len(k_MD):
        return
    held = q_ND.new_empty(min(ROWS, len(q_ND)), len(k_MD))
    with torch.autocast(q_ND.device.type, enabled=False):
        for first in range(0, len(q_ND), ROWS):
            rows = slice(first, min(first + ROWS, len(q_ND)))
            yield rows, torch.mm(q_ND[rows] * scale, k_MD.T, out=held[: rows.stop - rows.start])
