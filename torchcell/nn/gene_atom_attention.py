"""Genes look at the atoms of a molecule, each gene at those that matter to it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.nn.ragged import pad


class GeneAtomAttention(nn.Module):
    r"""y_bg = sum over heads n of s_bn u_gn . (sum over atoms a of alpha_gna v_an), alpha the softmax of q_gn . k_an.

    As the attention of genes over molecules in MultiDCP (Wu, Liu and Xie, PLoS Comput. Biol. 2022), with a product for
    the read-out, so that nothing of B x G x D is kept but one attention a molecule; s_b, linear in the sample's
    vector, lets line and dose turn a head up, down or round.

    Args:
        width: Width W of an atom.
        gene_width: Width D of a gene.
        features: Width H of a sample.
        heads: Attention heads; W must be a multiple.

    Raises:
        ValueError: A width that does not divide into the heads.

    Shapes:
        x_AW [A, W], ptr_P [U + 1], gamma_GD [G, D], h_BH [B, H], place_B int64 [B] -> [B, G]; place_B names each
        sample's molecule among U, and one without atoms gives 0.
    """

    def __init__(self, width: int, gene_width: int, features: int, heads: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} numbers an atom do not divide into {heads} heads")
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.query_read = nn.Linear(gene_width, 2 * width, bias=False)
        self.strength = nn.Linear(features, heads)

    def forward(
        self,
        x_AW: Float[Tensor, "A W"],
        ptr_P: Int[Tensor, " P"],
        gamma_GD: Float[Tensor, "G D"],
        h_BH: Float[Tensor, "B H"],
        place_B: Int[Tensor, " B"],
    ) -> Float[Tensor, "B G"]:
        """What the atoms add to each sample's genes."""
        index_US, mask_US = pad(ptr_P)
        strength_BN = self.strength(h_BH)
        if not mask_US.shape[1]:
            return 0.0 * (strength_BN.sum(1, keepdim=True) + self.query_read(gamma_GD).sum(1))
        key_A, value_A = self.key_value(self.norm(x_AW)).unflatten(1, (2 * self.heads, -1)).chunk(2, 1)
        query_G, read_G = self.query_read(gamma_GD).unflatten(1, (2 * self.heads, -1)).chunk(2, 1)
        keys, values = (each[index_US].transpose(1, 2) for each in (key_A, value_A))
        queries = query_G.transpose(0, 1).expand(len(index_US), -1, -1, -1)
        # A molecule without atoms looks at one that is not its own, and counts for nothing.
        some_U = mask_US[:, 0]
        seen_US = torch.where(some_U[:, None], mask_US, torch.ones_like(mask_US))[:, None, None]
        found_UNGC = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=seen_US)
        read_NGC = read_G.transpose(0, 1)
        said_UNG = (found_UNGC * read_NGC).sum(-1) / read_NGC.shape[-1] ** 0.5 * some_U[:, None, None]
        return torch.einsum("bn,bng->bg", strength_BN, said_UNG[place_B])
