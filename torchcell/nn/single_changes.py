"""What each perturbed gene did alone in training, and the sum over the genes of a combination."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from torchcell.graph.ranges import owner


class SingleChanges(nn.Module):
    """The sum over a set's genes of the change that each had alone.

    Of a gene that was perturbed alone in the set's own group that change is taken, else the mean over the groups where
    it was; a gene that was in none adds the mean of the group's singles, or of all where the group is not known.

    Args:
        gene_K: Perturbed gene of each single condition of the training part, positions in the vocabulary [K].
        group_K: Its group [K].
        n_genes: N, of the vocabulary.
        n_groups: C.
        n_outputs: G.

    Shapes:
        gene_M, pointers [B + 1], group_B -> [B, G]; zeros before ``fit``.

    Source:
        Ahlmann-Eltze, Huber and Anders, Nat. Methods 2025, the additive model.
    """

    gene_K: Tensor
    group_K: Tensor
    row_CN: Tensor
    table_RG: Tensor

    def __init__(self, gene_K: Tensor, group_K: Tensor, n_genes: int, n_groups: int, n_outputs: int) -> None:
        super().__init__()
        # Rows of the table: the singles, the mean of each of their genes, of each group, and of all.
        held, first_K = torch.unique(gene_K, return_inverse=True)
        n, n_held = len(gene_K), len(held)
        row_CN = (n + n_held + torch.arange(n_groups + 1))[:, None].repeat(1, n_genes)
        row_CN[:, held] = n + torch.arange(n_held)
        row_CN[group_K, gene_K] = torch.arange(n)
        for name, value in (("gene_K", first_K), ("group_K", group_K), ("row_CN", row_CN)):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("table_RG", torch.zeros(n + n_held + n_groups + 1, n_outputs))

    @torch.no_grad()
    def fit(self, change_KG: Float[Tensor, "K G"]) -> None:
        """Take over the changes of the singles, in the order of ``gene_K``."""
        n, n_groups = len(self.gene_K), len(self.row_CN) - 1
        if not n:
            return
        of_gene = _means(change_KG, self.gene_K, len(self.table_RG) - n - n_groups - 1)
        of_group = _means(change_KG, self.group_K, n_groups)
        seen = torch.isin(torch.arange(n_groups, device=self.group_K.device), self.group_K)
        overall = of_group[seen].mean(0, keepdim=True)
        of_group[~seen] = overall
        self.table_RG.copy_(torch.cat([change_KG, of_gene, of_group, overall]))

    def forward(
        self, gene_M: Int[Tensor, " M"], ptr_P: Int[Tensor, " P"], group_B: Int[Tensor, " B"]
    ) -> Float[Tensor, "B G"]:
        """Sums over the genes of each set; group -1 is one that was not trained on."""
        set_M = owner(ptr_P, len(gene_M))
        row_M = self.row_CN[group_B[set_M], gene_M]  # -1 is the last row, of no group
        found_BG = self.table_RG.new_zeros(len(group_B), self.table_RG.shape[1])
        return found_BG.index_add(0, set_M, self.table_RG[row_M])


def _means(values_KG: Tensor, name_K: Tensor, n: int) -> Tensor:
    """Mean of the rows of each of n names; zeros for one without rows."""
    total = values_KG.new_zeros(n, values_KG.shape[1]).index_add(0, name_K, values_KG)
    return total / torch.bincount(name_K, minlength=n).clamp(min=1)[:, None]
