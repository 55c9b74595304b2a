"""Weighted reconstruction of a relation's adjacency from embeddings, exact, without a dense row per gene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.data.errors import InputError, near
from torchcell.graph.cell_graph import CSR, CellGraph
from torchcell.nn.spmm import full_precision


class Reconstruction(nn.Module):
    r"""Squared error of z_i . w_j against A_ij over all pairs, absent edges weighted lambda.

    .. math::
        L = \frac{1}{\sum_E A_{ij}^2} \Big[ \sum_{ij \in E} (A_{ij} - s_{ij})^2
            + \lambda \sum_{ij \notin E} s_{ij}^2 \Big], \quad s_{ij} = z_i \cdot w_j

    The sum over all N^2 pairs is a product of two D x D Gram matrices,
    sum_ij s_ij^2 = tr(Z^T Z W^T W), and the edges correct it with one number each: exact at a cost of
    N D^2 + E D, with nothing of size N x N or E x D. A value of 1 is what predicting no edge at all gives.

    Args:
        graph: The relations.
        channels: Which of them are reconstructed.
        zero_weight: lambda for all channels, or a table that names each channel once.

    Raises:
        InputError: A channel that the table lacks, or a name in it that is no channel.

    Source: Zhang et al., bioRxiv 2020.11.26.400739, reconstruction loss; the scale is ours, so that a
    channel's part does not depend on the number of its edges or of the genes.
    """

    def __init__(self, graph: CellGraph, channels: Sequence[str], zero_weight: float | Mapping[str, float]) -> None:
        super().__init__()
        self.zero_weight = zero_weights(channels, zero_weight)
        for channel in channels:
            self.register_buffer(f"{channel}_order", _transposed_order(graph, channel), persistent=False)

    def forward(
        self, graph: CellGraph, channel: str, z_ND: Float[Tensor, "N D"], w_ND: Float[Tensor, "N D"]
    ) -> Float[Tensor, ""]:
        """The loss of one channel.

        Args:
            graph: Holds the channel.
            channel: Which one.
            z_ND: Embeddings of the rows [N, D].
            w_ND: Embeddings of the columns [N, D].

        Returns:
            A scalar; 0 is perfect, 1 is no skill.
        """
        csrs = graph.csr(channel), graph.csr(channel, transpose=True)
        order = getattr(self, f"{channel}_order")
        with torch.autocast(z_ND.device.type, enabled=False):
            return _WeightedError.apply(
                full_precision(z_ND), full_precision(w_ND), *csrs, order, self.zero_weight[channel]
            )

    def extra_repr(self) -> str:
        """The weight of absent edges by channel."""
        return f"zero_weight={self.zero_weight}"


def zero_weights(channels: Sequence[str], zero_weight: float | Mapping[str, float]) -> dict[str, float]:
    """One weight a channel, from one number for all or from a table that must name exactly the channels."""
    if not isinstance(zero_weight, Mapping):
        zero_weight = {channel: float(zero_weight) for channel in channels}
    for name in zero_weight:
        if name not in channels:
            hint = near(name, list(channels)) or list(channels)
            raise InputError(f"zero_weight names {name!r}, which is no channel; the nearest are {hint}")
    missing = [channel for channel in channels if channel not in zero_weight]
    if missing:
        raise InputError(f"zero_weight has no entry for the channels {missing}; add them")
    negative = [name for name, weight in zero_weight.items() if not 0 <= weight < float("inf")]
    if negative:
        raise InputError(f"zero_weight must be a number from 0 up; mend the entries of {negative}")
    return {channel: float(zero_weight[channel]) for channel in channels}


class _WeightedError(torch.autograd.Function):
    """The loss with its gradients, which share the Gram matrices and the edges' scores with it.

    dL/dZ = 2 lambda Z (W^T W) + G W and dL/dW = 2 lambda W (Z^T Z) + G^T Z, where G stands on the edges
    only: G_ij = 2 (s_ij - A_ij) - 2 lambda s_ij; all over the sum of A^2.
    """

    @staticmethod
    def forward(ctx: Any, z_ND: Tensor, w_ND: Tensor, csr: CSR, transpose: CSR, order: Tensor, zero: float) -> Tensor:
        weight_E = csr.weight.to(z_ND.dtype)
        pattern = _sparse(csr, weight_E, w_ND)
        score_E = torch.sparse.sampled_addmm(pattern, z_ND, w_ND.T, beta=0).values()
        gram_z, gram_w = z_ND.T @ z_ND, w_ND.T @ w_ND
        error_E = score_E - weight_E
        unit = weight_E.square().sum()
        grad_E = (error_E - zero * score_E) * (2 / unit)
        grad_z = grad_w = None
        if ctx.needs_input_grad[0]:
            grad_z = (_sparse(csr, grad_E, w_ND) @ w_ND).addmm_(z_ND, gram_w * (2 * zero / unit))
        if ctx.needs_input_grad[1]:
            grad_w = (_sparse(transpose, grad_E[order], z_ND) @ z_ND).addmm_(w_ND, gram_z * (2 * zero / unit))
        ctx.save_for_backward(grad_z, grad_w)
        absent = (gram_z * gram_w).sum() - score_E.square().sum()
        return (error_E.square().sum() + zero * absent) / unit

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_z, grad_w = ctx.saved_tensors
        return *(None if part is None else grad * part for part in (grad_z, grad_w)), None, None, None, None


def _sparse(csr: CSR, value_E: Tensor, other_ND: Tensor) -> Tensor:
    size = (len(csr.indptr) - 1, len(other_ND))
    return torch.sparse_csr_tensor(csr.indptr, csr.indices, value_E, size=size, check_invariants=False)


def _transposed_order(graph: CellGraph, channel: str) -> Int[Tensor, " E"]:
    """Where each edge of the transpose stands in the matrix itself."""
    indptr, indices, _ = (part.cpu().numpy() for part in graph.csr(channel))
    position = sp.csr_matrix((np.arange(1, len(indices) + 1), indices, indptr), shape=(len(graph), len(graph)))
    transpose = position.T.tocsr()
    transpose.sort_indices()
    return torch.from_numpy(transpose.data.astype(np.int64) - 1).to(graph.csr(channel).indices.device)
