"""A list of neighbors for each measured gene, for sparse attention: from networks, and from the control cells."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import moments
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighborhood import CHUNK, adjacencies, rows_of
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.io.matrices import dense

CELLS = 1024
"""Cells that are dense at a time."""


@configurable
@dataclass(frozen=True)
class GeneNeighbors:
    """The K genes that each gene looks at; call it with the training conditions.

    Up to K - ``correlated`` places go to neighbors in the networks, of whatever direction; a gene with more of them
    keeps those whose expression goes along with its own. All other places go to the most correlated genes, by size of
    the Pearson correlation over the control cells of training; with ``correlated=null`` they stay empty.

    Attributes:
        k: Neighbors K of a gene, which itself is none of them.
        correlated: Places that networks must leave to correlation; none: no gene is there for its correlation.
        relations: Networks to use; none: all among genes.
    """

    k: int = 16
    correlated: int | None = 0
    relations: Collection[str] | None = None

    def __call__(self, train: Pseudobulk, graph: CellGraph | None = None) -> np.ndarray:
        """Positions among ``train.genes``, the nearest first, int64 [G, K]; -1 fills the rest.

        Raises:
            InputError: A K below 1, more places for correlation than there are, an unknown relation, or no networks
                where they alone are asked for.
        """
        if self.k < 1 or not 0 <= (self.correlated or 0) <= self.k:
            raise InputError(
                f"data.genes.neighbors: k={self.k} must be 1 or more, and correlated={self.correlated} 0 to k"
            )
        if graph is None and self.correlated is None:
            raise InputError("data.genes.neighbors.correlated=null needs networks; choose a graph, or correlated=0")
        joined = self._joined(graph, train.genes)
        controls = train.cells.X[train.control_cells()]
        center, scale = _standard(controls)
        n_genes = len(train.genes)
        lists = np.full((n_genes, self.k), -1, dtype=np.int64)
        for start in range(0, n_genes, CHUNK):
            own = np.arange(start, min(start + CHUNK, n_genes))
            size = _correlations(controls, center, scale, own)
            near = joined[own].toarray() > 0
            size[np.arange(len(own)), own], near[np.arange(len(own)), own] = -1.0, False
            for i in range(len(own)):
                found = self._list(size[i], near[i])
                lists[own[i], : len(found)] = found
        return lists

    def _list(self, size: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Positions for one gene from its correlations, by size [G], and its neighbors in the networks, bool [G]."""
        place = np.argsort(-size, kind="stable")
        linked = place[near[place]][: self.k - (self.correlated or 0)]
        if self.correlated is None:
            return linked
        further = place[(size[place] > 0) & ~np.isin(place, linked)]
        return np.concatenate([linked, further[: self.k - len(linked)]])

    def _joined(self, graph: CellGraph | None, genes: np.ndarray) -> sp.csr_matrix:
        """Which genes the networks join, in either direction [G, G]; entries above 0."""
        total = sp.csr_matrix((len(genes), len(genes)), dtype=np.float32)
        if graph is None:
            if self.relations is not None:
                raise InputError(
                    f"data.genes.neighbors.relations={list(self.relations)}: there is no graph; choose one"
                )
            return total
        for relation in self.relations or ():
            graph.ends(relation)  # raises with the nearest names
        index = graph.index(genes)
        for name, matrix in adjacencies(graph):
            if self.relations is None or name.removesuffix(" reversed") in self.relations:
                part = rows_of((matrix != 0).astype(np.float32).tocsr(), index)
                total = total + rows_of(part.T.tocsr(), index).T
        return (total + total.T).tocsr()


def _standard(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Center of each column, and what makes its length 1 after that: 0 for a constant one; float32 [G] each."""
    center, variance = moments(values, np.arange(values.shape[0]))
    spread = np.sqrt(variance)
    length = np.where(spread > 1e-6 * np.maximum(np.abs(center), 1.0), spread, np.inf) * np.sqrt(values.shape[0])
    return center.astype(np.float32), (1 / length).astype(np.float32)


def _correlations(values: Any, center: np.ndarray, scale: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Size of the correlations of the columns ``own`` with all, float32 [len(own), G]; few rows are dense at a time."""
    total = np.zeros((len(own), values.shape[1]), dtype=np.float32)
    for start in range(0, values.shape[0], CELLS):
        unit = (dense(values[start : start + CELLS]) - center) * scale
        total += unit[:, own].T @ unit
    return np.abs(total)
