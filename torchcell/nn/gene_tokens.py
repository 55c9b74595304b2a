"""A token a gene from its expression and from what the gene is; and what a perturbation of genes looks like."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.graph.ranges import owner
from torchcell.nn.feature_projection import FeatureProjection
from torchcell.nn.gene_vectors import GeneVectors
from torchcell.nn.ragged import segment_sum

MOST = 10.0
"""Standard deviations beyond which expression is cut off: a gene that few cells express has no smaller ones."""


class GeneIdentity(nn.Module):
    r"""What a gene is: a free vector by name, and its projected features if there are any.

    .. math::
        e_g = \sqrt{D} \, t_g + W f_g

    Args:
        n_measured: Genes that are measured and come first; the vectors of the others start at 0, so that one that
            training never names stays 0.
        n_own: Genes that the model was built with; those after them were added later and have no free vector.
        n_genes: All genes N.
        width: D.
        features_NF: Features of all genes [N, F], or none.
    """

    def __init__(
        self, n_measured: int, n_own: int, n_genes: int, width: int, features_NF: Float[Tensor, "N F"] | None = None
    ) -> None:
        super().__init__()
        self.gain = width**0.5
        self.free = GeneVectors(n_genes, n_own, width)
        with torch.no_grad():
            self.free.table.weight[n_measured:] = 0
        self.project = None if features_NF is None else FeatureProjection(features_NF, n_own, width)

    def forward(self) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]]:
        """The free part and the part from features, each [N, D]."""
        free_ND = self.gain * self.free()
        return free_ND, torch.zeros_like(free_ND) if self.project is None else self.project()


class PerturbationVector(nn.Module):
    r"""One vector a set of perturbed genes; their order changes nothing, and no gene gives 0.

    .. math::
        p_S = \sum_{g \in S} W_2 \, \mathrm{GELU}(W_1 e_g)

    Args:
        width: D.
        free_drop: Share of the perturbed genes whose free part is left out in a training step, so that features say
            what a gene does that was never perturbed.
    """

    def __init__(self, width: int, free_drop: float | int = 0.0) -> None:
        super().__init__()
        self.free_drop = free_drop
        self.network = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(
        self,
        free_ND: Float[Tensor, "N D"],
        known_ND: Float[Tensor, "N D"],
        gene_M: Int[Tensor, " M"],
        ptr_P: Int[Tensor, " P"],
    ) -> Float[Tensor, "B D"]:
        """One row a set, from ``GeneIdentity``'s two parts and ragged members."""
        free_MD = free_ND.index_select(0, gene_M)
        if self.training and self.free_drop:
            free_MD = free_MD * (torch.rand(len(gene_M), 1, device=free_MD.device) >= self.free_drop)
        return segment_sum(self.network(free_MD + known_ND.index_select(0, gene_M)), ptr_P)


class GeneTokens(nn.Module):
    r"""Tokens of the active genes in each cell, and global tokens that know the perturbation.

    .. math::
        x_{cg} = W e_g + v_{cg} V e_g + [g \in S_c] \, f, \quad x_{cp} = g_p + U_p p_S

    with expression v in standard deviations of the control cells, and a flag f at perturbed genes that are active.

    Args:
        width: D.
        n_global: Global tokens P.

    Shapes:
        -> [B, S, P + A, D].
    """

    def __init__(self, width: int, n_global: int) -> None:
        super().__init__()
        self.level, self.slope = nn.Linear(width, width), nn.Linear(width, width)
        self.flag = nn.Parameter(torch.randn(width))
        self.global_embedding = nn.Parameter(torch.randn(n_global, width))
        self.spread = nn.Linear(width, n_global * width, bias=False)

    def forward(
        self,
        value_BSA: Float[Tensor, "B S A"],
        e_AD: Float[Tensor, "A D"],
        p_BD: Float[Tensor, "B D"],
        place_M: Int[Tensor, " M"],
        ptr_P: Int[Tensor, " P"],
    ) -> Float[Tensor, "B S T D"]:
        """Tokens of all cells.

        Args:
            value_BSA: Expression of the active genes, standardised.
            e_AD: What each active gene is.
            p_BD: Of the perturbations.
            place_M: Where each perturbed gene stands among the active; -1 where it does not.
            ptr_P: Set b has perturbed genes ``ptr[b]`` to ``ptr[b + 1]``.
        """
        n_sets, n_cells, n_active = value_BSA.shape
        hit_BA = value_BSA.new_zeros(n_sets, n_active + 1)  # the last column takes what is not active
        hit_BA[owner(ptr_P, len(place_M)), place_M] = 1
        shared_BAD = self.level(e_AD) + hit_BA[:, :n_active, None] * self.flag
        value_BSA = value_BSA.clamp(-MOST, MOST)
        gene_BSAD = torch.addcmul(shared_BAD[:, None], value_BSA[..., None], self.slope(e_AD).to(value_BSA.dtype))
        global_BPD = self.global_embedding + self.spread(p_BD).unflatten(-1, self.global_embedding.shape)
        global_BSPD = global_BPD[:, None].expand(-1, n_cells, -1, -1)
        return torch.cat([global_BSPD, gene_BSAD], 2)
