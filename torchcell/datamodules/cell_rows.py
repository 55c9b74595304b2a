"""``CellRows``: sets of cells, which stay sparse in a batch and are made dense on the device where they are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from torchcell.graph.ranges import expand, owner


class CellRows(ABC):
    """Expression of B sets of S cells each over G genes, float32.

    Attributes:
        shape: B, S and G.
    """

    shape: tuple[int, int, int]

    @staticmethod
    def of(matrix: Any, rows: np.ndarray) -> CellRows:
        """The cells at ``rows`` [B, S] of a matrix [n, G]: sparse if it is, and then read without its zeros."""
        values, shape = matrix[rows.ravel()], (*rows.shape, int(matrix.shape[1]))
        if not sparse.issparse(values):
            return DenseRows(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).view(shape))
        values = values.tocsr()
        kinds = {"indptr": np.int64, "indices": np.int32, "data": np.float32}
        held = {name: torch.from_numpy(getattr(values, name).astype(kind, copy=False)) for name, kind in kinds.items()}
        return SparseRows(held["indptr"], held["indices"], held["data"], shape)

    @staticmethod
    def none(n_sets: int, n_genes: int) -> CellRows:
        """Sets without cells."""
        return DenseRows(torch.empty(n_sets, 0, n_genes))

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that are carried."""

    @abstractmethod
    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The cells on another device."""

    @abstractmethod
    def narrow(self, start: int, stop: int) -> Self:
        """Sets ``start`` to ``stop``; values are views."""

    @abstractmethod
    def split(self, size: int) -> Iterator[Self]:
        """The same sets with at most ``size`` of their cells at a time."""

    @abstractmethod
    def dense(self, genes: Int[Tensor, " A"] | None = None) -> Float[Tensor, "B S A"]:
        """Expression of each cell over the genes at these positions, each of them once; none: over all."""

    @abstractmethod
    def mean(self) -> Float[Tensor, "B G"]:
        """Mean of each set over its cells."""


@dataclass(frozen=True, eq=False)
class DenseRows(CellRows):
    """Cells out of a dense matrix.

    Attributes:
        values: Expression [B, S, G].
    """

    values: Float[Tensor, "B S G"]

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """B, S and G."""
        n_sets, n_cells, n_genes = self.values.shape
        return n_sets, n_cells, n_genes

    @property
    def nbytes(self) -> int:
        """Bytes that are carried."""
        return self.values.nbytes

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The cells on another device."""
        return type(self)(self.values.to(device, non_blocking=non_blocking))

    def narrow(self, start: int, stop: int) -> Self:
        """Sets ``start`` to ``stop``, a view."""
        return type(self)(self.values[start:stop])

    def split(self, size: int) -> Iterator[Self]:
        """Views with at most ``size`` cells a set."""
        return (type(self)(part) for part in self.values.split(size, 1))

    def dense(self, genes: Int[Tensor, " A"] | None = None) -> Float[Tensor, "B S A"]:
        """Expression of each cell, over these genes or all."""
        return self.values if genes is None else self.values[:, :, genes]

    def mean(self) -> Float[Tensor, "B G"]:
        """Mean of each set over its cells."""
        return self.values.mean(1)


@dataclass(frozen=True, eq=False)
class SparseRows(CellRows):
    """Cells out of a sparse matrix: CSR with a row a cell, the sets one after the other.

    Attributes:
        indptr: Cell i has the values ``indptr[i]`` to ``indptr[i + 1]``, int64 [B * S + 1].
        indices: Gene of each value, int32 [E], in any order.
        values: Float32 [E].
        shape: B, S and G.
    """

    indptr: Int[Tensor, " n"]
    indices: Int[Tensor, " E"]
    values: Float[Tensor, " E"]
    shape: tuple[int, int, int]

    @property
    def nbytes(self) -> int:
        """Bytes that are carried."""
        return self.indptr.nbytes + self.indices.nbytes + self.values.nbytes

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The cells on another device."""
        held = {name: getattr(self, name) for name in ("indptr", "indices", "values")}
        return replace(self, **{name: each.to(device, non_blocking=non_blocking) for name, each in held.items()})

    def narrow(self, start: int, stop: int) -> Self:
        """Sets ``start`` to ``stop``; all but the pointer are views."""
        n_sets, n_cells, n_genes = self.shape
        start, stop, _ = slice(start, stop).indices(n_sets)
        indptr = self.indptr[start * n_cells : stop * n_cells + 1]
        first, last = int(indptr[0]), int(indptr[-1])
        shape = (stop - start, n_cells, n_genes)
        return type(self)(indptr - first, self.indices[first:last], self.values[first:last], shape)

    def split(self, size: int) -> Iterator[Self]:
        """The same sets with at most ``size`` cells, whose values are gathered."""
        n_sets, n_cells, n_genes = self.shape
        if size >= n_cells:
            yield self
            return
        rows = torch.arange(n_sets * n_cells, device=self.values.device).view(n_sets, n_cells)
        for part in rows.split(size, 1):
            start, counts = self.indptr[part.flatten()], self.indptr.diff()[part.flatten()]
            at, _ = expand(start, counts)
            indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            yield type(self)(indptr, self.indices[at], self.values[at], (n_sets, part.shape[1], n_genes))

    def dense(self, genes: Int[Tensor, " A"] | None = None) -> Float[Tensor, "B S A"]:
        """Expression of each cell, over these genes or all; a gene's values in one cell are added up."""
        n_sets, n_cells, n_genes = self.shape
        if genes is None:
            return self._scattered(self.indices, n_genes).view(self.shape)
        # Values of the other genes go to a last column that no one reads: to pick would make a device wait for a count.
        place = torch.full((n_genes,), len(genes), dtype=torch.int32, device=self.values.device)
        place[genes] = torch.arange(len(genes), dtype=torch.int32, device=self.values.device)
        wider = self._scattered(place.index_select(0, self.indices), len(genes) + 1)
        return wider.view(n_sets, n_cells, -1)[:, :, :-1]

    def mean(self) -> Float[Tensor, "B G"]:
        """Mean of each set over its cells, added up from the values that are there."""
        n_sets, n_cells, n_genes = self.shape
        one_row_a_set = replace(self, indptr=self.indptr[::n_cells], shape=(n_sets, 1, n_genes))
        return one_row_a_set.dense()[:, 0].div_(n_cells)

    def _scattered(self, columns: Tensor, width: int) -> Tensor:
        """The values added into zeros at their rows and these columns [rows, width]."""
        if self.values.device.type != "cpu":
            return self._scattered_on_device(columns, width)
        parts = (part.numpy() for part in (self.values, columns, self.indptr))  # three times faster than scattering
        return torch.from_numpy(sparse.csr_matrix(tuple(parts), shape=(len(self.indptr) - 1, width)).toarray())

    def _scattered_on_device(self, columns: Tensor, width: int) -> Tensor:
        n_rows = len(self.indptr) - 1
        at = owner(self.indptr, len(columns)) * width + columns
        return self.values.new_zeros(n_rows * width).scatter_add_(0, at, self.values).view(n_rows, width)
