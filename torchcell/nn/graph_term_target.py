"""``GraphTarget``: one relation as what a head's attention should look like, its rows, columns and slices.

Capitals: N genes, C covered genes, R rows with neighbours, E edges.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.graph.cell_graph import CSR, CellGraph
from torchcell.nn.relation_stack import out_edges, reversed_csr
from torchcell.nn.relational_product import relational_product


class GraphTarget(nn.Module):
    r"""The row-normalised adjacency of one relation between genes, in parts.

    .. math::
        \tilde A_{ij} = |w_{ij}| / \sum_j |w_{ij}|

    over the edges between covered genes, without self-loops and edges of weight 0. The weights are stored as
    they are and the rows divided after a product, so that an undirected relation is its own transpose.

    Args:
        graph: Holds the relation.
        relation: Which; both its ends are genes.
        covered: Genes that the relation speaks of [N]; by default those with an edge in either direction. The
            others are neither row nor column.

    Attributes:
        row_R: Covered genes with a neighbour, int64 [R].
        column_C: Covered genes, int64 [C].
        other_X: Genes that are not covered, int64 [X].
        degree_N: Neighbours a gene, int64 [N].
        total_N: Sum of the absolute weights of a row, float64 [N].
        entropy_N: sum_j A~_ij log A~_ij, float64 [N].

    Raises:
        InputError: An unknown relation, one with other ends, or a mask of another length.
    """

    row_R: Tensor
    column_C: Tensor
    other_X: Tensor
    degree_N: Tensor
    total_N: Tensor
    entropy_N: Tensor

    def __init__(self, graph: CellGraph, relation: str, covered: Bool[Tensor, " N"] | None = None) -> None:
        super().__init__()
        if graph.ends(relation) != ("gene", "gene"):
            source, target = graph.ends(relation)
            raise InputError(f"relation {relation} joins {source}s to {target}s: tie a head to one between genes")
        if covered is not None and len(covered) != len(graph):
            raise InputError(f"the mask of {relation} covers {len(covered)} genes, the graph has {len(graph)}")
        matrix = _between(graph.scipy(relation), None if covered is None else covered.cpu().numpy())
        transpose = matrix.T.tocsr()
        degree = np.diff(matrix.indptr)
        held = (degree > 0) | (np.diff(transpose.indptr) > 0) if covered is None else covered.cpu().numpy()
        exact = matrix.astype(np.float64)
        total = np.asarray(exact.sum(1)).ravel()
        exact.data /= np.repeat(total, degree)
        exact.data *= np.log(exact.data)
        self.n_genes, self.n_edges, self.symmetric = len(graph), matrix.nnz, (matrix != transpose).nnz == 0
        self._hold("forward", matrix)
        if not self.symmetric:
            self._hold("backward", transpose)
        for name, values in (
            ("row_R", np.flatnonzero(degree)),
            ("column_C", np.flatnonzero(held)),
            ("other_X", np.flatnonzero(~held)),
            ("degree_N", degree.astype(np.int64)),
            ("total_N", total),
            ("entropy_N", np.asarray(exact.sum(1)).ravel()),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def _hold(self, name: str, matrix: sp.csr_matrix) -> None:
        for part, values in zip(CSR._fields, (matrix.indptr, matrix.indices, matrix.data), strict=True):
            kind = np.float32 if part == "weight" else np.int32
            self.register_buffer(f"{name}_{part}", torch.from_numpy(values.astype(kind)), persistent=False)

    def csr(self, transpose: bool = False) -> CSR:
        """The absolute weights [N, N], or their transpose."""
        name = "backward" if transpose and not self.symmetric else "forward"
        return CSR(*(getattr(self, f"{name}_{part}") for part in CSR._fields))

    def slice(self, row_S: Int[Tensor, " S"]) -> CSR:
        """Some of the rows [S, N], columns sorted."""
        csr = self.csr()
        edge_E, size_S, _ = out_edges(csr, row_S)
        indptr = torch.cat([size_S.new_zeros(1), size_S.cumsum(0)]).int()
        return CSR(indptr, csr.indices[edge_E], csr.weight[edge_E])

    def mean(self, x_ND: Float[Tensor, "N D"], row_S: Int[Tensor, " S"] | None = None) -> Float[Tensor, "S D"]:
        """A~ X for the rows ``row_R``, or for the given ones: one sparse product of width D."""
        if row_S is None:
            product_SD = relational_product([(self.csr(), self.csr(True))], x_ND, None, True)[self.row_R]
            row_S = self.row_R
        else:
            rows = self.slice(row_S)
            product_SD = relational_product([(rows, reversed_csr(rows, self.n_genes))], x_ND, None, True)
        return product_SD / self.total_N[row_S, None].to(product_SD.dtype)

    def place(self, column_M: Int[Tensor, " M"]) -> Int[Tensor, " N"]:
        """Where each gene stands in a list of columns, int64 [N]; -1 for a gene that is not in it."""
        place_N = column_M.new_full((self.n_genes,), -1)
        place_N[column_M] = torch.arange(len(column_M), device=column_M.device)
        return place_N

    def neighbours(self, row_S: Int[Tensor, " S"], place_N: Int[Tensor, " N"], n_columns: int) -> Bool[Tensor, "S M"]:
        """Which of M columns are neighbours of which of S rows; for a chunk of rows, not for all."""
        csr = self.csr()
        edge_E, _, whose_E = out_edges(csr, row_S)
        column_E = place_N[csr.indices[edge_E]]
        among = column_E >= 0
        near_SM = torch.zeros(len(row_S), n_columns, dtype=torch.bool, device=row_S.device)
        near_SM[whose_E[among], column_E[among]] = True
        return near_SM

    def has_edge(self, row_P: Int[Tensor, " P"], column_P: Int[Tensor, " P"]) -> Bool[Tensor, " P"]:
        """Whether column j is a neighbour of row i, for P pairs: a binary search in each row."""
        indptr, indices, _ = self.csr()
        low_P, end_P = indptr[row_P].long(), indptr[row_P + 1].long()
        high_P = end_P.clone()
        for _ in range(int(self.degree_N.max()).bit_length()):
            middle_P = (low_P + high_P) // 2
            before = (low_P < high_P) & (indices[middle_P.clamp(max=self.n_edges - 1)] < column_P)
            low_P = torch.where(before, middle_P + 1, low_P)
            high_P = torch.where(before, high_P, middle_P)
        return (low_P < end_P) & (indices[low_P.clamp(max=self.n_edges - 1)] == column_P)

    def extra_repr(self) -> str:
        """Rows, columns and edges."""
        return f"{len(self.row_R):,} rows, {len(self.column_C):,} columns, {self.n_edges:,} edges"


def _between(matrix: sp.csr_matrix, covered: np.ndarray | None) -> sp.csr_matrix:
    """Absolute weights of the edges between two different covered genes, sorted."""
    coo = matrix.tocoo()
    keep = (coo.row != coo.col) & (coo.data != 0)
    if covered is not None:
        keep &= covered[coo.row] & covered[coo.col]
    kept = (np.abs(coo.data[keep]), (coo.row[keep], coo.col[keep]))
    found = sp.csr_matrix(kept, shape=matrix.shape, dtype=np.float32)
    found.sort_indices()
    return found
