"""Softmax attention that also gives the log-sum-exp of some heads, differentiable in both; never T x T.

Capitals: H heads, T tokens, D width of a head, K tied heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from torchcell.data.errors import InputError
from torchcell.nn.log_sum_exp import log_sum_exp
from torchcell.nn.spmm import full_precision

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
    tied: Sequence[int] = (),
) -> tuple[Float[Tensor, "H T D"], Float[Tensor, "K T"]]:
    r"""Attention of all heads, and the log-sum-exp of the scores of the tied ones.

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
        tied: Heads whose log-sum-exp is wanted, each once; a graph term needs it.

    Returns:
        Output [H, T, D], and the log-sum-exp [K, T] in the order of ``tied``, float32 for half precisions.

    Raises:
        InputError: A tied head that does not exist, or is named twice.
    """
    n_heads = len(q_HTD)
    if len(set(tied)) < len(tied) or not all(0 <= head < n_heads for head in tied):
        raise InputError(f"tied heads {list(tied)}: name each once, from 0 to {n_heads - 1}")
    q_HTD, k_HTD, v_HTD = (_autocast(each) for each in (q_HTD, k_HTD, v_HTD))
    if q_HTD.device.type == "cpu" and q_HTD.dtype in KERNEL_DTYPES:
        return _Attention.apply(q_HTD, k_HTD, v_HTD, tuple(tied))
    if not tied:
        out_HTD = functional.scaled_dot_product_attention(q_HTD[None], k_HTD[None], v_HTD[None])[0]
        return out_HTD, q_HTD.new_empty((0, q_HTD.shape[1]), dtype=full_precision(out_HTD[:0]).dtype)
    return chunked_attention(q_HTD, k_HTD, v_HTD, tied)


def chunked_attention(
    q_HTD: Float[Tensor, "H T D"],
    k_HTD: Float[Tensor, "H T D"],
    v_HTD: Float[Tensor, "H T D"],
    tied: Sequence[int],
) -> tuple[Float[Tensor, "H T D"], Float[Tensor, "K T"]]:
    """The same on any device: torch's attention, and the log-sum-exp of the tied heads by chunks of rows."""
    out_HTD = functional.scaled_dot_product_attention(q_HTD[None], k_HTD[None], v_HTD[None])[0]
    scale = q_HTD.shape[-1] ** -0.5
    return out_HTD, torch.stack([log_sum_exp(q_HTD[head], k_HTD[head], scale) for head in tied])


def _autocast(x: Tensor) -> Tensor:
    """What autocast would do to an input of torch's own attention; it does not see into a custom function."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(kind))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_HTD, k_HTD, v_HTD, tied):
        out, lse = _flash(q_HTD[None], k_HTD[None], v_HTD[None], scale=q_HTD.shape[-1] ** -0.5)
        ctx.save_for_backward(q_HTD, k_HTD, v_HTD, out[0], lse[0])
        ctx.tied = tied
        ctx.set_materialize_grads(False)
        return out[0], lse[0, list(tied)]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_HTD, grad_KT):
        held = ctx.saved_tensors
        if grad_HTD is None:
            grad_HTD = torch.zeros_like(held[3])
        if grad_KT is None or not ctx.tied:
            return *_gradients(grad_HTD, held), None
        grad_lse_HT = grad_KT.new_zeros(held[4].shape).index_copy_(0, torch.tensor(ctx.tied), grad_KT)
        if full_precision(grad_HTD[:0]).dtype == grad_HTD.dtype:
            return *_gradients(grad_HTD, held, grad_lse_HT), None
        tied = list(ctx.tied)
        free = [head for head in range(len(held[0])) if head not in ctx.tied]
        grads = [torch.empty_like(each) for each in held[:3]]
        with torch.autocast(grad_HTD.device.type, enabled=False):
            # In half precision g, one over the number of rows, would lose digits or vanish.
            wide = [full_precision(each[tied]) for each in held]
            parts = [(tied, _gradients(full_precision(grad_HTD[tied]), wide, grad_lse_HT[tied]))]
            if free:
                parts.append((free, _gradients(grad_HTD[free], [each[free] for each in held])))
        for heads, part in parts:
            for whole, some in zip(grads, part, strict=True):
                whole[heads] = some.to(whole.dtype)
        return *grads, None


def _gradients(grad_HTD: Tensor, held: Sequence[Tensor], grad_lse_HT: Tensor | None = None) -> list[Tensor]:
    """Of q, k and v, by the stock kernel; ``held`` is q, k, v, the output and the log-sum-exp."""
    q, k, v, out, lse = held
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
