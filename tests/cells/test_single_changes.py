"""What singles did, taken of the own group, else of the gene's other groups, else of the group's other genes."""

from __future__ import annotations

import torch

from torchcell.cells.models.gene_set_transformer.model import SingleChanges


def planted() -> tuple[SingleChanges, torch.Tensor]:
    """Gene 3 in groups 0 and 1, gene 5 in group 0 alone; gene 7 never; group 2 has no single."""
    changes = torch.tensor([[1.0, 0], [3, 0], [0, 5]])
    singles = SingleChanges(torch.tensor([3, 3, 5]), torch.tensor([0, 1, 0]), n_genes=9, n_groups=3, n_outputs=2)
    return singles, changes


def test_the_own_group_comes_first_then_the_gene_then_the_group():
    singles, changes = planted()
    sets = {(3,): (0, [1.0, 0]), (5,): (1, [0, 5.0]), (3, 5): (1, [3.0, 5]), (7,): (0, [0.5, 2.5]), (): (1, [0.0, 0])}
    sets |= {(3, 7): (1, [6.0, 0]), (5, 7): (2, [1.75, 6.25])}  # of group 2 the mean of the groups: .5 and 3, 2.5 and 0
    gene = torch.tensor([gene for genes in sets for gene in genes])
    ptr = torch.tensor([0, *(len(genes) for genes in sets)]).cumsum(0)
    group = torch.tensor([group for group, _ in sets.values()])
    assert (singles(gene, ptr, group) == 0).all()
    singles.fit(changes)
    torch.testing.assert_close(singles(gene, ptr, group), torch.tensor([said for _, said in sets.values()]))


def test_of_an_unknown_group_the_means_over_groups_are_told():
    singles, changes = planted()
    singles.fit(changes)
    found = singles(torch.tensor([3, 7]), torch.tensor([0, 1, 2]), torch.tensor([-1, -1]))
    torch.testing.assert_close(found, torch.tensor([[2.0, 0], [1.75, 1.25]]))
