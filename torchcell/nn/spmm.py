"""Sparse times dense over one relation of the wild-type graph, with the transpose held for backward."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from torchcell.graph.cell_graph import CSR, CellGraph

# torch says once that its CSR support is in beta; we test it against the dense product.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


class _SpMM(torch.autograd.Function):
    """A @ X; the gradient is A^T @ g from the stored transpose, so nothing of size E x d is made."""

    @staticmethod
    def forward(ctx, x_ND, forward_csr, backward_csr):
        ctx.backward_csr = backward_csr
        return multiply(forward_csr, x_ND)

    @staticmethod
    def backward(ctx, grad_ND):
        return multiply(ctx.backward_csr, grad_ND.contiguous()), None, None


def multiply(csr: CSR, x_ND: Tensor) -> Tensor:
    """A @ X without a gradient; rows of A may be fewer or more than its columns, which are the rows of X."""
    n = len(csr.indptr) - 1
    weight = csr.weight.to(x_ND.dtype)
    # The graph checks its own indices once; checking them again at each step would cost more than the product.
    matrix = torch.sparse_csr_tensor(csr.indptr, csr.indices, weight, size=(n, x_ND.shape[0]), check_invariants=False)
    with torch.autocast(x_ND.device.type, enabled=False):  # it would cast the product's inputs to half again
        return matrix @ x_ND


def spmm(graph: CellGraph, relation: str, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "T D"]:
    """Sum over the edges into each node: y_i = sum_j A_ij x_j.

    Args:
        graph: Holds A and its transpose.
        relation: Which A.
        x_ND: One row a node of the relation's source type [N, D].

    Returns:
        One row a node of its target type [T, D]; both are genes in most relations. Isolated nodes get zeros.
    """
    product_TD = _SpMM.apply(full_precision(x_ND), graph.csr(relation), graph.csr(relation, transpose=True))
    return product_TD.to(x_ND.dtype)


def full_precision(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """float32 in place of the half precisions, for which torch has no sparse product on a CPU."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
