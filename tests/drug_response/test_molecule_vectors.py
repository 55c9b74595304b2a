"""Molecules by rows of a table: what stands in for those without, and the encoder's shape."""

from __future__ import annotations

import torch

from torchcell.drug_response.models.base import MoleculeVectors


def table(**changes) -> MoleculeVectors:
    return MoleculeVectors(torch.randn(4, 10), torch.tensor([True, True, False, False]), 6, 8, **changes)


def test_molecules_without_a_row_are_one_learned_vector():
    molecules = table().eval()
    found = molecules(torch.tensor([0, 1, 2, 3]))
    assert found.shape == (4, 6)
    torch.testing.assert_close(found[2], molecules.missing_embedding)
    torch.testing.assert_close(found[3], found[2])
    assert not torch.allclose(found[0], found[1])


def test_in_training_some_molecules_count_as_unknown():
    molecules = table(drop=0.5)
    found = molecules(torch.zeros(400, dtype=torch.long))
    share = (found == molecules.missing_embedding).all(1).float().mean()
    assert 0.35 < share < 0.65
    assert not (molecules.eval()(torch.zeros(5, dtype=torch.long)) == molecules.missing_embedding).all(1).any()


def test_the_table_is_no_part_of_a_checkpoint():
    assert not [name for name in table().state_dict() if name in ("vector_DF", "known_D")]
    assert table(missing=False).missing_embedding is None
