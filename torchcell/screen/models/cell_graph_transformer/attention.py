"""Attention of all tokens to all, within a fixed amount of memory, and the log-sum-exp of its scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from torchcell.io.errors import InputError
from torchcell.nn.sparse import full_precision

LSE_ROWS = 512
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
    buffer = q_ND.new_empty(min(LSE_ROWS, len(q_ND)), len(k_MD))
    with torch.autocast(q_ND.device.type, enabled=False):
        for first in range(0, len(q_ND), LSE_ROWS):
            rows = slice(first, min(first + LSE_ROWS, len(q_ND)))
            yield rows, torch.mm(q_ND[rows] * scale, k_MD.T, out=buffer[: rows.stop - rows.start])


KERNEL_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""What the fused kernel for CPUs takes."""

SHORT, SHORTEST = 1e-18, 1e-30
"""Of g, and at least: largest entry of a row of dO that counts. Below it the row is noise beside g."""

ROWS = 191
"""Queries a call of the kernel's backward: below 192 it works in blocks that stay in a core's cache."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention(
    q_HTD: Float[Tensor, "H T D"],
    k_HTD: Float[Tensor, "H T D"],
    v_HTD: Float[Tensor, "H T D"],
    assigned: Sequence[int] = (),
) -> tuple[Float[Tensor, "H T D"], Float[Tensor, "K T"]]:
    r"""Attention of all heads, and the log-sum-exp of the scores of the assigned ones.

    .. math::
        y_i = \sum_j e^{s_{ij} - \ell_i} v_j, \quad \ell_i = \log \sum_j e^{s_{ij}}, \quad
        s_{ij} = q_i \cdot k_j / \sqrt{D}

    On a CPU both come from one fused kernel, whose log-sum-exp has no gradient of its own. With g the gradient
    of :math:`\ell`, row i of dS lacks g_i P_i, and the kernel's backward takes dO_i . O_i off each dP_ij; handed
    O'_i = O_i - g_i dO_i / |dO_i|^2 it takes off g_i less, and costs nothing more. On other devices the log-sum-exp
    is computed a second time in chunks.

    Args:
        q_HTD: Queries [H, T, D]. Under autocast they are cast as for torch's own attention.
        k_HTD: Keys [H, T, D].
        v_HTD: Values [H, T, D].
        assigned: Heads whose log-sum-exp is wanted, each once; a graph loss needs it.

    Returns:
        Output [H, T, D], and the log-sum-exp [K, T] in the order of ``assigned``, float32 for half precisions.

    Raises:
        InputError: An assigned head that does not exist, or is named twice.
    """
    n_heads = len(q_HTD)
    if len(set(assigned)) < len(assigned) or not all(0 <= head < n_heads for head in assigned):
        raise InputError(f"assigned heads {list(assigned)}: name each once, from 0 to {n_heads - 1}")
    q_HTD, k_HTD, v_HTD = (_autocast(each) for each in (q_HTD, k_HTD, v_HTD))
    if q_HTD.device.type == "cpu" and q_HTD.dtype in KERNEL_DTYPES:
        return _Attention.apply(q_HTD, k_HTD, v_HTD, tuple(assigned))
    if not assigned:
        out_HTD = functional.scaled_dot_product_attention(q_HTD[None], k_HTD[None], v_HTD[None])[0]
        return out_HTD, q_HTD.new_empty((0, q_HTD.shape[1]), dtype=full_precision(out_HTD[:0]).dtype)
    return chunked_attention(q_HTD, k_HTD, v_HTD, assigned)


def chunked_attention(
    q_HTD: Float[Tensor, "H T D"],
    k_HTD: Float[Tensor, "H T D"],
    v_HTD: Float[Tensor, "H T D"],
    assigned: Sequence[int],
) -> tuple[Float[Tensor, "H T D"], Float[Tensor, "K T"]]:
    """The same on any device: torch's attention, and the log-sum-exp of the assigned heads by chunks of rows."""
    out_HTD = functional.scaled_dot_product_attention(q_HTD[None], k_HTD[None], v_HTD[None])[0]
    scale = q_HTD.shape[-1] ** -0.5
    return out_HTD, torch.stack([log_sum_exp(q_HTD[head], k_HTD[head], scale) for head in assigned])


def _autocast(x: Tensor) -> Tensor:
    """What autocast would do to an input of torch's own attention; it does not see into a custom function."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(kind))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_HTD, k_HTD, v_HTD, assigned):
        out, lse = _flash(q_HTD[None], k_HTD[None], v_HTD[None], scale=q_HTD.shape[-1] ** -0.5)
        ctx.save_for_backward(q_HTD, k_HTD, v_HTD, out[0], lse[0])
        ctx.assigned = assigned
        ctx.set_materialize_grads(False)
        return out[0], lse[0, list(assigned)]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_HTD, grad_KT):
        saved = ctx.saved_tensors
        if grad_HTD is None:
            grad_HTD = torch.zeros_like(saved[3])
        if grad_KT is None or not ctx.assigned:
            return *_gradients(grad_HTD, saved), None
        grad_lse_HT = grad_KT.new_zeros(saved[4].shape).index_copy_(0, torch.tensor(ctx.assigned), grad_KT)
        if full_precision(grad_HTD[:0]).dtype == grad_HTD.dtype:
            return *_gradients(grad_HTD, saved, grad_lse_HT), None
        assigned = list(ctx.assigned)
        free = [head for head in range(len(saved[0])) if head not in ctx.assigned]
        grads = [torch.empty_like(each) for each in saved[:3]]
        with torch.autocast(grad_HTD.device.type, enabled=False):
            # In half precision g, one over the number of rows, would lose digits or vanish.
            wide = [full_precision(each[assigned]) for each in saved]
            parts = [(assigned, _gradients(full_precision(grad_HTD[assigned]), wide, grad_lse_HT[assigned]))]
            if free:
                parts.append((free, _gradients(grad_HTD[free], [each[free] for each in saved])))
        for heads, part in parts:
            for whole, some in zip(grads, part, strict=True):
                whole[heads] = some.to(whole.dtype)
        return *grads, None


def _gradients(grad_HTD: Tensor, saved: Sequence[Tensor], grad_lse_HT: Tensor | None = None) -> list[Tensor]:
    """Of q, k and v, by the stock kernel; ``saved`` is q, k, v, the output and the log-sum-exp."""
    q, k, v, out, lse = saved
    if grad_lse_HT is not None:
        grad_HTD, out = _with_lse(grad_HTD, out, grad_lse_HT[..., None].to(grad_HTD.dtype))
    # Half precisions are packed anew a call, so there all queries go at once.
    rows = ROWS if full_precision(q[:0]).dtype == q.dtype else max(1, q.shape[1])
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for some in (slice(first, first + rows) for first in range(0, q.shape[1], rows)):
        some_q, some_out, some_grad, some_lse = (each[None, :, some] for each in (q, out, grad_HTD, lse))
        part = _flash_backward(
            some_grad, some_q, k[None], v[None], some_out, some_lse, 0.0, False, scale=q.shape[-1] ** -0.5
        )
        grad_q[:, some] = part[0][0]
        grad_k += part[1][0]
        grad_v += part[2][0]
    return [grad_q, grad_k, grad_v]


def _with_lse(grad_HTD: Tensor, out_HTD: Tensor, g_HT1: Tensor) -> tuple[Tensor, Tensor]:
    """dO and O' = O - g dO / |dO|^2. Rows of dO too short to divide by are made as long as rounding errors of g."""
    size_HT1 = grad_HTD.abs().amax(-1, keepdim=True)
    least_HT1 = (g_HT1.abs() * SHORT).clamp(min=SHORTEST)
    short_HT1 = (size_HT1 < least_HT1) & (g_HT1 != 0)
    if short_HT1.any():
        grad_HTD = grad_HTD.clone()
        grad_HTD[..., :1] += torch.where(short_HT1, 2 * least_HT1, 0)
        size_HT1 = grad_HTD.abs().amax(-1, keepdim=True)
    unit_HTD = grad_HTD / size_HT1.clamp(min=SHORTEST)  # of largest entry 1, whose square neither is 0 nor infinite
    along_HTD = unit_HTD / unit_HTD.square().sum(-1, keepdim=True).clamp(min=1)
    return grad_HTD, out_HTD - g_HT1 / size_HT1.clamp(min=SHORTEST) * along_HTD


class HeadScores(NamedTuple):
    """What a graph loss reads of one head: queries and keys of all tokens, and their log-sum-exp where it is wanted."""

    q_TD: Tensor
    k_TD: Tensor
    lse_T: Tensor | None
