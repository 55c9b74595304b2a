"""Sum over relations of sparse x dense x weight, whole or for some columns; nothing of size E x d is made or kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from torchcell.graph.cell_graph import CSR
from torchcell.nn.relation_stack import Columns, reversed_csr
from torchcell.nn.spmm import full_precision, multiply

Pairs = Sequence[tuple[CSR, CSR]]
"""A_r and its transpose for each relation."""


@dataclass(frozen=True, eq=False)
class Cell:
    """What a layer reads of a cell, whole or with nodes missing.

    Attributes:
        pairs: A_r and A_r^T for each relation.
        kind_N: Type of each node, int64 [N].
        keep_N: 1 for nodes that are there, 0 for missing ones [N]; none: all are there.
        scale_RN: Factor on each relation's messages to each node [R, N], such as one over its true degree; or none.
    """

    pairs: Pairs
    kind_N: Tensor
    keep_N: Tensor | None = None
    scale_RN: Tensor | None = None


def relational_product(
    pairs: Pairs, x_ND: Float[Tensor, "N D"], weight_RDK: Float[Tensor, "R D K"] | None, fused: bool
) -> Tensor:
    r"""The messages that reach each node: :math:`Y_r = A_r X W_r`, or their sum over r.

    Backward keeps X alone: :math:`G_r = A_r^T g`, :math:`dW_r = X^T G_r`, :math:`dX = \sum_r G_r W_r^T`.

    Args:
        pairs: A_r and A_r^T.
        x_ND: One row a node [N, D].
        weight_RDK: W_r [R, D, K]; none stands for the identity.
        fused: Whether to add the relations up.

    Returns:
        [N, K] if fused, else [R, N, K].
    """
    return _Whole.apply(full_precision(x_ND), _full(weight_RDK), pairs, fused)


def column_product(
    columns: Callable[[], Columns],
    x_CD: Float[Tensor, "C D"],
    weight_RDK: Float[Tensor, "R D K"] | None,
    n_relations: int,
    fused: bool,
) -> Tensor:
    r"""What C nodes alone send: :math:`Y_r = A_r[:, C] X_C W_r`, or their sum over r.

    Args:
        columns: Gives the columns, once forward and once backward: slicing again is cheaper than keeping them.
        x_CD: One row a node of the list [C, D].
        weight_RDK: W_r [R, D, K]; none stands for the identity.
        n_relations: R.
        fused: Whether to add the relations up.

    Returns:
        [M, K] if fused, else [R, M, K], M the number of targets.
    """
    return _Columns.apply(full_precision(x_CD), _full(weight_RDK), columns, n_relations, fused)


def _full(weight_RDK: Tensor | None) -> Tensor | None:
    return None if weight_RDK is None else full_precision(weight_RDK)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_ND, weight_RDK, pairs, fused):
        ctx.save_for_backward(x_ND, weight_RDK)
        ctx.pairs, ctx.fused = pairs, fused
        with torch.autocast(x_ND.device.type, enabled=False):
            parts: list[Tensor] = []
            for number, (forward, _) in enumerate(pairs):
                part = multiply(forward, x_ND if weight_RDK is None else x_ND @ weight_RDK[number])
                if fused and parts:
                    parts[0] += part
                else:
                    parts.append(part)
            return parts[0] if fused else torch.stack(parts)

    @staticmethod
    def backward(ctx, grad):
        x_ND, weight_RDK = ctx.saved_tensors
        grad_x = torch.zeros_like(x_ND)
        grad_weight = None if weight_RDK is None else torch.empty_like(weight_RDK)
        with torch.autocast(x_ND.device.type, enabled=False):
            for number, (_, transpose) in enumerate(ctx.pairs):
                sent_NK = multiply(transpose, (grad if ctx.fused else grad[number]).contiguous())
                if grad_weight is None:
                    grad_x += sent_NK
                else:
                    torch.mm(x_ND.T, sent_NK, out=grad_weight[number])
                    grad_x.addmm_(sent_NK, weight_RDK[number].T)
        return grad_x, grad_weight, None, None


class _Columns(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_CD, weight_RDK, columns, n_relations, fused):
        ctx.save_for_backward(x_CD, weight_RDK)
        ctx.columns, ctx.n_relations, ctx.fused = columns, n_relations, fused
        csr, n_targets = columns()
        with torch.autocast(x_CD.device.type, enabled=False):
            message_RCK = x_CD.expand(n_relations, *x_CD.shape) if weight_RDK is None else x_CD @ weight_RDK
            if fused:
                return multiply(reversed_csr(csr, n_targets), message_RCK.flatten(0, 1))
            parts = [
                multiply(reversed_csr(rows, n_targets), message_CK)
                for rows, message_CK in zip(_by_relation(csr, n_relations), message_RCK, strict=True)
            ]
            return torch.stack(parts)

    @staticmethod
    def backward(ctx, grad):
        x_CD, weight_RDK = ctx.saved_tensors
        csr, _ = ctx.columns()
        with torch.autocast(x_CD.device.type, enabled=False):
            if ctx.fused:
                sent_RCK = multiply(csr, grad.contiguous()).unflatten(0, (ctx.n_relations, len(x_CD)))
            else:
                rows = _by_relation(csr, ctx.n_relations)
                sent_RCK = torch.stack([multiply(r, g.contiguous()) for r, g in zip(rows, grad, strict=True)])
            if weight_RDK is None:
                return sent_RCK.sum(0), None, None, None, None
            grad_x = (sent_RCK @ weight_RDK.transpose(1, 2)).sum(0)
            return grad_x, x_CD.T @ sent_RCK, None, None, None


def _by_relation(csr: CSR, n_relations: int) -> list[CSR]:
    """The rows (r, c) of each relation r as a matrix of its own."""
    size = (len(csr.indptr) - 1) // n_relations
    parts = []
    for number in range(n_relations):
        indptr = csr.indptr[number * size : (number + 1) * size + 1]
        first, last = int(indptr[0]), int(indptr[-1])
        parts.append(CSR(indptr - indptr[0], csr.indices[first:last], csr.weight[first:last]))
    return parts
