"""What attention over edges needs of a sparse pattern, in two ways: sparse kernels, and gathers and scatters.

Both ways hold no more than one number an edge and head, but that ``Gathered`` also gathers the vectors of a chunk.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from torchcell.graph.cell_graph import CSR


class Block(NamedTuple):
    """A relation's edges, and where its sources and targets stand among all.

    Attributes:
        csr: Row i holds the sources of the edges into its target i, both counted from the slices' starts.
        source: The rows of keys and values that the columns are.
        target: The rows of queries that the rows are.
    """

    csr: CSR
    source: slice
    target: slice


class Gathered:
    """Edges into some rows, by gathering the vectors at both ends of each; on any device.

    Args:
        indptr: Row i holds edges ``indptr[i]`` to ``indptr[i + 1]``, counted from 0, [n + 1].
        source_E: Column of each edge [E].
        n_columns: M.
    """

    edges = 65_536
    """How many edges are taken at once."""

    def __init__(self, indptr: Tensor, source_E: Tensor, n_columns: int) -> None:
        self.indptr, self.source_E, self.n_columns, self.n_rows = indptr, source_E, n_columns, len(indptr) - 1

    @cached_property
    def row_E(self) -> Tensor:
        """Row of each edge [E]."""
        rows = torch.arange(self.n_rows, device=self.indptr.device)
        return torch.repeat_interleave(rows, self.indptr.diff(), output_size=len(self.source_E))

    def spread(self, x_Hn: Tensor) -> Tensor:
        """Each row's number at its edges [H, E]."""
        return x_Hn.index_select(1, self.row_E)

    def dots(self, x_HnD: Tensor, y_HMD: Tensor) -> Tensor:
        """Inner product of row and column at each edge [H, E]."""
        return (x_HnD.index_select(1, self.row_E) * y_HMD.index_select(1, self.source_E)).sum(-1)

    def largest(self, x_HE: Tensor) -> Tensor:
        """Largest number of each row [H, n]; minus infinity for a row without edges."""
        out_Hn = x_HE.new_full((len(x_HE), self.n_rows), -torch.inf)
        return out_Hn.scatter_reduce(1, self.row_E.expand_as(x_HE), x_HE, "amax")

    def total(self, x_HE: Tensor) -> Tensor:
        """Sum of each row [H, n]."""
        return x_HE.new_zeros(len(x_HE), self.n_rows).index_add(1, self.row_E, x_HE)

    def collect(self, x_HE: Tensor, y_HMD: Tensor) -> Tensor:
        """Sum over the edges of each row of number times column's vector [H, n, D]."""
        out_HnD = y_HMD.new_zeros(len(y_HMD), self.n_rows, y_HMD.shape[2])
        return out_HnD.index_add(1, self.row_E, x_HE[:, :, None] * y_HMD.index_select(1, self.source_E))

    def deliver(self, x_HE: Tensor, y_HnD: Tensor, out_HMD: Tensor) -> None:
        """Add to each column, over its edges, number times row's vector."""
        out_HMD.index_add_(1, self.source_E, x_HE[:, :, None] * y_HnD.index_select(1, self.row_E))


class Sparse(Gathered):
    """The same by sparse matrix products head by head, and NumPy's reductions of sorted runs; on a CPU."""

    edges = 262_144

    @cached_property
    def _filled(self) -> np.ndarray:
        """Rows that have edges: ``reduceat`` gives nonsense for the others."""
        return np.flatnonzero(np.diff(self.indptr.numpy()))

    def _matrix(self, x_E: Tensor) -> Tensor:
        size = (self.n_rows, self.n_columns)
        return torch.sparse_csr_tensor(self.indptr, self.source_E, x_E, size=size, check_invariants=False)

    def _reduced(self, ufunc: np.ufunc, x_HE: Tensor, empty: float) -> Tensor:
        out_Hn = x_HE.new_full((len(x_HE), self.n_rows), empty)
        starts = self.indptr.numpy()[self._filled]
        for out_n, x_E in zip(out_Hn.numpy(), x_HE.numpy(), strict=True):
            out_n[self._filled] = ufunc.reduceat(x_E, starts)
        return out_Hn

    def dots(self, x_HnD: Tensor, y_HMD: Tensor) -> Tensor:
        """Inner product of row and column at each edge [H, E]."""
        nothing_E = x_HnD.new_zeros(len(self.source_E))
        pattern = self._matrix(nothing_E)
        out_HE = x_HnD.new_empty(len(x_HnD), len(self.source_E))
        for out_E, x_nD, y_MD in zip(out_HE, x_HnD, y_HMD, strict=True):
            out_E.copy_(torch.sparse.sampled_addmm(pattern, x_nD, y_MD.T, beta=0.0).values())
        return out_HE

    def spread(self, x_Hn: Tensor) -> Tensor:
        """Each row's number at its edges [H, E]."""
        return torch.from_numpy(np.repeat(x_Hn.numpy(), np.diff(self.indptr.numpy()), axis=1))

    def largest(self, x_HE: Tensor) -> Tensor:
        """Largest number of each row [H, n]; minus infinity for a row without edges."""
        return self._reduced(np.maximum, x_HE, -np.inf)

    def total(self, x_HE: Tensor) -> Tensor:
        """Sum of each row [H, n]."""
        return self._reduced(np.add, x_HE, 0.0)

    def collect(self, x_HE: Tensor, y_HMD: Tensor) -> Tensor:
        """Sum over the edges of each row of number times column's vector [H, n, D]."""
        return torch.stack([self._matrix(x_E) @ y_MD for x_E, y_MD in zip(x_HE, y_HMD, strict=True)])

    def deliver(self, x_HE: Tensor, y_HnD: Tensor, out_HMD: Tensor) -> None:
        """Add to each column, over its edges, number times row's vector."""
        indices, indptr, size = self.source_E.numpy(), self.indptr.numpy(), (self.n_columns, self.n_rows)
        for x_E, y_nD, out_MD in zip(x_HE, y_HnD, out_HMD, strict=True):
            # A CSR matrix read as CSC is its transpose: torch would convert it first.
            transpose = sp.csc_matrix((x_E.numpy(), indices, indptr), shape=size)
            out_MD += torch.from_numpy(transpose @ y_nD.numpy())


WAYS: dict[str, type[Gathered]] = {"sparse": Sparse, "gather": Gathered}
