"""Embeddings of genes: learned by name, from features, and imputed for genes without training samples."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torchcell.graph.cell_graph import CSR, CellGraph, unit_rows
from torchcell.graph.neighborhood import CHUNK, neighborhoods
from torchcell.nn.relations import relational_product


class Imputation(nn.Module):
    r"""A gene without training samples takes what its neighbors learned.

    .. math::
        e_i \leftarrow \sum_j w_{ij} e_j, \quad w_{ij} \propto \cos(n_i, n_j)^p

    over the k trained genes j whose neighborhoods n_j in all networks (and annotations, if there are any) are most
    similar to its own. A trained gene keeps its vector, and so does a gene without neighbors.

    Args:
        graph: The networks.
        trained: Positions of the genes with training samples, int64.
        k: Neighbors of a gene.
        power: Exponent p of the cosine.
        features: Features of the genes [N, F]. A gene without edges, such as one that was added to a trained model,
            gets its neighbors by the cosine of the centered features.
        everyone: Whether to find neighbors of trained genes too, so that training can treat them as untrained.
        n_own: Number of genes that the model was trained with, which come first; by default all. Features are centered
            on these.

    Shapes:
        x_OD [O, D] -> [nodes, D], or [genes, D] where O is not the number of nodes. Rows that x lacks, of genes
        added after it was made, start as zeros.
    """

    own_N: Tensor
    missing_N: Tensor

    def __init__(
        self,
        graph: CellGraph,
        trained: Int[Tensor, " T"],
        k: int = 50,
        power: float = 2.0,
        features: Float[Tensor, "N F"] | None = None,
        everyone: bool = False,
        n_own: int | None = None,
    ) -> None:
        super().__init__()
        self.k, self.power, self.everyone = k, power, everyone
        self.n_genes, self.n_nodes = len(graph), graph.n_nodes
        has_samples = np.zeros(len(graph), dtype=bool)
        has_samples[trained.cpu().numpy()] = True
        rows_wanted = np.arange(len(graph)) if everyone else np.flatnonzero(~has_samples)
        cosine = _nearest(unit_rows(neighborhoods(graph, graph.genes)), has_samples, rows_wanted, k)
        if features is not None:
            lonely = rows_wanted[np.diff(cosine.indptr)[rows_wanted] == 0]
            known = features.detach().cpu().numpy()
            centered = known - known[:n_own].mean(0)  # added genes must not shift each other's
            cosine = cosine + _nearest(unit_rows(sp.csr_matrix(centered)), has_samples, lonely, k)
        cosine.data **= power
        total = np.asarray(cosine.sum(1)).ravel()
        weight = (sp.diags(np.divide(1, total, out=np.zeros_like(total), where=total > 0)) @ cosine).tocsr()
        for name, matrix in (("forward", weight), ("backward", weight.T.tocsr())):
            for part, array in zip(CSR._fields, (matrix.indptr, matrix.indices, matrix.data), strict=True):
                dtype = np.float32 if part == "weight" else np.int32
                self.register_buffer(f"{name}_{part}", torch.from_numpy(array.astype(dtype)), persistent=False)
        self.register_buffer("own_N", torch.from_numpy(total == 0), persistent=False)
        self.register_buffer("missing_N", torch.from_numpy(~has_samples), persistent=False)

    def forward(
        self, x_OD: Float[Tensor, "O D"], untrained_N: Bool[Tensor, " N"] | None = None
    ) -> Float[Tensor, "M D"]:
        """Rows of untrained genes replaced, and of those that ``untrained_N`` [genes] marks."""
        if untrained_N is not None and not self.everyone:
            raise ValueError("untrained_N marks genes whose neighbors were not looked for; build with everyone=True")
        if self.n_genes < len(x_OD) != self.n_nodes:
            raise ValueError(f"{len(x_OD)} rows are neither of {self.n_genes} genes nor of {self.n_nodes} nodes")
        others = x_OD[self.n_genes :] if len(x_OD) == self.n_nodes else x_OD[:0]
        x_ND = x_OD[: self.n_genes]
        x_ND = nn.functional.pad(x_ND, (0, 0, 0, self.n_genes - len(x_ND)))
        missing_N = self.missing_N if untrained_N is None else self.missing_N | untrained_N
        mean_ND = relational_product([(self._csr("forward"), self._csr("backward"))], x_ND, None, True)
        return torch.cat([torch.where((missing_N & ~self.own_N)[:, None], mean_ND, x_ND), others])

    def _csr(self, name: str) -> CSR:
        return CSR(*(getattr(self, f"{name}_{part}") for part in CSR._fields))

    def extra_repr(self) -> str:
        """Neighbors, exponent, and how many genes take theirs from others."""
        n_imputed = int((self.missing_N & ~self.own_N).sum())
        return f"k={self.k}, power={self.power}, everyone={self.everyone}, {n_imputed:,} genes imputed"


def _nearest(unit: sp.csr_matrix, donors: np.ndarray, rows_wanted: np.ndarray, k: int) -> sp.csr_matrix:
    """Cosine of each gene of ``rows_wanted`` to the k nearest of the ``donors``, itself left out, [genes, genes]."""
    columns = (sp.diags(donors.astype(np.float32)) @ unit).T.tocsr()
    rows, neighbors, values = [np.empty(0, dtype=int)], [np.empty(0, dtype=int)], [np.empty(0, dtype=np.float32)]
    for start in range(0, len(rows_wanted), CHUNK):
        part = rows_wanted[start : start + CHUNK]
        cosine = (unit[part] @ columns).toarray()
        cosine[np.arange(len(part)), part] = 0
        best = (
            np.argpartition(-cosine, k, axis=1)[:, :k]
            if k < len(donors)
            else np.tile(np.arange(len(donors)), (len(part), 1))
        )
        value = np.take_along_axis(cosine, best, 1)
        near = value > 0
        rows.append(np.repeat(part, best.shape[1])[near.ravel()])
        neighbors.append(best[near])
        values.append(value[near])
    parts = np.concatenate(values), (np.concatenate(rows), np.concatenate(neighbors))
    return sp.csr_matrix(parts, shape=(len(donors), len(donors)), dtype=np.float32)


class FeatureProjection(nn.Module):
    r"""A linear map of standardized features.

    .. math::
        x_i = W \, \mathrm{asinh}\Big(\frac{f_i - \mu}{\sigma}\Big) + b

    with mean and standard deviation of each column over the genes that the model was built with; asinh shortens the
    heavy tails of network spectra. The features are not part of the state, so that the weights fit any cell.

    Args:
        values_NF: Features of all genes [N, F].
        n_own: Genes that the model was built with; those after them were added later.
        width: Width D of a token.

    Shapes:
        -> [N, D].
    """

    features: Tensor

    def __init__(self, values_NF: Float[Tensor, "N F"], n_own: int, width: int) -> None:
        super().__init__()
        own_OF = values_NF[:n_own]
        spread_F = own_OF.std(0, correction=0)
        # A constant column becomes 0; divided by its rounding errors it would be large.
        spread_F = torch.where(spread_F > 1e-6 * own_OF.abs().amax(0), spread_F, torch.inf)
        self.register_buffer("features", ((values_NF - own_OF.mean(0)) / spread_F).asinh(), persistent=False)
        self.linear = nn.Linear(values_NF.shape[1], width)

    def forward(self) -> Float[Tensor, "N D"]:
        """One token for each gene."""
        return self.linear(self.features)


class GeneVectors(nn.Module):
    """Free vectors of length 1 on average for each gene.

    Args:
        n_genes: Number of genes N of the cell.
        n_own: Number of genes with a row; those after them were added to a trained model.
        width: Width W.
        imputation: What a gene without training samples takes from its neighbors. Without it such a gene keeps its
            fresh row, and an added gene has zeros.

    Shapes:
        -> [N, W].
    """

    def __init__(self, n_genes: int, n_own: int, width: int, imputation: Imputation | None = None) -> None:
        super().__init__()
        self.n_genes, self.imputation = n_genes, imputation
        self.table = nn.Embedding(n_own, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new rows."""
        nn.init.normal_(self.table.weight, std=self.table.embedding_dim**-0.5)

    def forward(self, untrained_N: Tensor | None = None) -> Float[Tensor, "N W"]:
        """One row a gene; ``untrained_N`` [N] marks genes to treat as if they had no training samples."""
        x_OW = self.table.weight
        if self.imputation is None:
            return nn.functional.pad(x_OW, (0, 0, 0, self.n_genes - len(x_OW)))
        return self.imputation(x_OW, untrained_N)

    def length(self, gene_M: Tensor) -> Float[Tensor, ""]:
        """Mean squared length of the rows of some genes."""
        return self.table(gene_M).square().sum(-1).mean()
