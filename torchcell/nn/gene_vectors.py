"""Vectors that are learned for each gene by name, and what genes without training samples get instead."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from torchcell.nn.cold_start import ColdStart


class GeneVectors(nn.Module):
    """Free vectors of length 1 on average for each gene.

    Args:
        n_genes: Genes N of the cell.
        n_own: Genes that have a row of their own; those after them were added to a trained model.
        width: Width W.
        cold: What a gene without training samples takes from its neighbours. Without it such a gene keeps its fresh
            row, and an added gene has zeros.

    Shapes:
        -> [N, W].
    """

    def __init__(self, n_genes: int, n_own: int, width: int, cold: ColdStart | None = None) -> None:
        super().__init__()
        self.n_genes, self.cold = n_genes, cold
        self.table = nn.Embedding(n_own, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new rows."""
        nn.init.normal_(self.table.weight, std=self.table.embedding_dim**-0.5)

    def forward(self, as_cold_N: Tensor | None = None) -> Float[Tensor, "N W"]:
        """One row a gene; ``as_cold_N`` [N] marks genes to treat as if they had no training samples."""
        x_OW = self.table.weight
        if self.cold is None:
            return nn.functional.pad(x_OW, (0, 0, 0, self.n_genes - len(x_OW)))
        return self.cold(x_OW, as_cold_N)

    def length(self, gene_M: Tensor) -> Float[Tensor, ""]:
        """Mean squared length of the members' own rows."""
        return self.table(gene_M).square().sum(-1).mean()
