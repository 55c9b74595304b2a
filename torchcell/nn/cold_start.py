"""Embeddings for genes that were never trained: the mean over their nearest trained genes in the networks."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.graph.cell_graph import CSR, CellGraph
from torchcell.graph.neighbourhoods import neighbourhoods
from torchcell.nn.relational_product import relational_product


class ColdStart(nn.Module):
    r"""A gene without training samples takes what its neighbours learned.

    .. math::
        e_i \leftarrow \sum_j w_{ij} e_j, \quad w_{ij} \propto \cos(n_i, n_j)^p

    over the k trained genes j whose neighbourhoods n_j in all networks are most like its own. A trained gene keeps
    its embedding, and so does a gene without neighbours.

    Args:
        graph: The networks.
        trained: Positions of the genes that training samples name, int64.
        k: Neighbours a gene.
        power: Exponent p of the cosine.

    Shapes:
        x_ND [nodes, D] -> [nodes, D].
    """

    def __init__(self, graph: CellGraph, trained: Int[Tensor, " T"], k: int = 50, power: float = 2.0) -> None:
        super().__init__()
        self.k, self.power = k, power
        held = np.zeros(len(graph), dtype=np.float32)
        held[trained.numpy()] = 1
        near = neighbourhoods(graph, graph.genes)
        cosine = _nearest(near, held, k)
        cosine.data **= power
        total = np.asarray(cosine.sum(1)).ravel()
        weight = (sp.diags(np.divide(1, total, out=np.zeros_like(total), where=total > 0)) @ cosine).tocsr()
        weight.eliminate_zeros()
        weight.resize(graph.n_nodes, graph.n_nodes)
        for name, matrix in (("forward", weight), ("backward", weight.T.tocsr())):
            for part, values in zip(CSR._fields, (matrix.indptr, matrix.indices, matrix.data), strict=True):
                kind = np.float32 if part == "weight" else np.int32
                self.register_buffer(f"{name}_{part}", torch.from_numpy(values.astype(kind)), persistent=False)
        self.own: Tensor
        own = torch.from_numpy((np.diff(weight.indptr) == 0).astype(np.float32))
        self.register_buffer("own", own, persistent=False)

    def forward(self, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Rows of untrained genes replaced."""
        pair = (self._csr("forward"), self._csr("backward"))
        return x_ND * self.own[:, None] + relational_product([pair], x_ND, None, True)

    def _csr(self, name: str) -> CSR:
        return CSR(*(getattr(self, f"{name}_{part}") for part in CSR._fields))

    def extra_repr(self) -> str:
        """Neighbours, exponent, and how many genes take theirs from others."""
        return f"k={self.k}, power={self.power}, {int((self.own == 0).sum()):,} cold genes"


def _nearest(near: sp.csr_matrix, held: np.ndarray, k: int) -> sp.csr_matrix:
    """Cosine of each untrained gene to its k nearest trained ones, [genes, genes]."""
    cold = np.flatnonzero(held == 0)
    rows = sp.csr_matrix(near[cold] @ (sp.diags(held) @ near).T)
    kept = []
    for i in range(len(cold)):
        span = slice(rows.indptr[i], rows.indptr[i + 1])
        values, columns = rows.data[span], rows.indices[span]
        best = np.argpartition(-values, k)[:k] if len(values) > k else np.arange(len(values))
        kept.append((np.full(len(best), cold[i]), columns[best], values[best]))
    row, column, value = (np.concatenate(part) for part in zip(*kept, strict=True)) if kept else ([], [], [])
    return sp.csr_matrix((value, (row, column)), shape=near.shape, dtype=np.float32)
