"""Attention of genes over atoms: the formula, and molecules without atoms."""

from __future__ import annotations

import torch

from torchcell.drug_response.models.chemoe.model import GeneAtomAttention


def test_equals_the_formula_one_molecule_and_gene_at_a_time():
    torch.manual_seed(0)
    layer = GeneAtomAttention(8, 5, 6, heads=2).double()
    x, gamma, h = torch.randn(7, 8).double(), torch.randn(3, 5).double(), torch.randn(4, 6).double()
    ptr, place = torch.tensor([0, 4, 4, 7]), torch.tensor([2, 0, 1, 2])
    found = layer(x, ptr, gamma, h, place)
    key, value = layer.key_value(layer.norm(x)).view(7, 4, 4).split(2, 1)
    query, read = layer.query_read(gamma).view(3, 4, 4).split(2, 1)
    for b, molecule in enumerate(place.tolist()):
        atoms = slice(int(ptr[molecule]), int(ptr[molecule + 1]))
        for g in range(3):
            heads = [
                ((key[atoms, n] @ query[g, n] / 2).softmax(0) @ value[atoms, n]) @ read[g, n] / 2 for n in range(2)
            ]
            expected = layer.strength(h[b]) @ torch.stack(heads)
            torch.testing.assert_close(found[b, g], torch.zeros_like(expected) if molecule == 1 else expected)


def test_no_atoms_at_all_give_zeros_and_gradients():
    layer = GeneAtomAttention(8, 5, 6, heads=2)
    found = layer(torch.randn(0, 8), torch.tensor([0, 0]), torch.randn(3, 5), torch.randn(2, 6), torch.zeros(2).long())
    assert found.tolist() == [[0.0] * 3] * 2
    assert found.requires_grad
