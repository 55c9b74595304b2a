"""Free pair factors of genes: a table that may start as the least-squares factors of what was measured."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.nn.cold_start import ColdStart
from torchcell.nn.gene_vectors import GeneVectors
from torchcell.nn.pair_factors import least_squares_factors
from torchcell.nn.pair_product import PairProduct


class PairTable(nn.Module):
    """Factors of each gene by name, and the score of a set from its members' factors; see ``PairProduct``.

    Args:
        n_genes: Genes N of the cell.
        n_own: Genes that have factors of their own, see ``GeneVectors``.
        width: Width P of the factors.
        outputs: Number T of scores.
        cold: See ``GeneVectors``.
        trained: Whether the factors move from where they start.

    Shapes:
        pair_NP [N, P], gene [M], ptr [B + 1] -> [B, T].
    """

    def __init__(
        self, n_genes: int, n_own: int, width: int, outputs: int, cold: ColdStart | None = None, trained: bool = True
    ) -> None:
        super().__init__()
        self.vectors = GeneVectors(n_genes, n_own, width, cold)
        self.vectors.table.requires_grad_(trained)
        self.product = PairProduct(width, outputs)

    def forward(
        self, pair_NP: Float[Tensor, "N P"], gene_M: Int[Tensor, " M"], ptr_P: Int[Tensor, " Q"]
    ) -> Float[Tensor, "B T"]:
        """One row of scores a set, from the factors that ``vectors`` gave in this step."""
        return self.product(pair_NP.index_select(0, gene_M), ptr_P)

    @torch.no_grad()
    def start(
        self, gene_M: Int[Tensor, " M"], ptr_P: Int[Tensor, " Q"], target_BT: Float[Tensor, "B T"], penalty: float
    ) -> None:
        """Factorise the table of measured pairs, and let factors and signs say just that; see ``pair_factors``.

        Args:
            gene_M: Members of all training sets.
            ptr_P: Their pointers [B + 1].
            target_BT: Phenotypes in units of the score, 0 for no effect, NaN for missing.
            penalty: Ridge penalty on the factors.
        """
        weight_OP = self.vectors.table.weight
        gene, ptr, target = (each.cpu().numpy() for each in (gene_M, ptr_P, target_BT))
        factors, sign = least_squares_factors(gene, ptr, target, len(weight_OP), weight_OP.shape[1], penalty)
        weight_OP.copy_(torch.from_numpy(factors))
        self.product.pair.weight.copy_(torch.from_numpy(sign))
