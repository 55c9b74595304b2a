from __future__ import annotations

import numpy as np
import pytest
import torch

from torchcell.drug_response.models.base import GINE, MoleculeGraphEncoder
from torchcell.drug_response.molecules import join_graphs, pack_graphs
from torchcell.drug_response.spec import PackedGraphs

SMILES = ["CCO", "", "c1ccccc1", "C", "CC(=O)Oc1ccccc1C(=O)O", "OCC"]


def tensors(smiles: list[str]) -> dict[str, torch.Tensor]:
    return PackedGraphs(**{name: torch.from_numpy(values) for name, values in pack_graphs(smiles).items()})


@pytest.fixture
def encoder() -> MoleculeGraphEncoder:
    torch.manual_seed(0)
    return MoleculeGraphEncoder(tensors(SMILES), width=16).eval()


def test_repr_and_shape(encoder):
    assert repr(encoder).startswith("MoleculeGraphEncoder(\n  6 molecules, 26 atoms, ")
    assert encoder(torch.tensor([4, 0, 4])).shape == (3, 16)
    assert encoder(torch.tensor([2])).shape == (1, 16)
    assert encoder(torch.zeros(0, dtype=torch.long)).shape == (0, 16)


def test_the_layer_equals_its_formula_atom_by_atom():
    torch.manual_seed(0)
    layer, x, e = GINE(4).double(), torch.randn(5, 4).double(), torch.randn(3, 4).double()
    index = torch.tensor([[0, 1, 2], [1, 0, 1]])
    torch.nn.init.constant_(layer.epsilon, 0.3)
    h = layer.norm(x)
    for i in range(5):
        heard = sum((torch.relu(h[j] + e[k]) for k, (j, t) in enumerate(index.T.tolist()) if t == i), torch.zeros(4))
        torch.testing.assert_close(layer(x, e, index)[i], x[i] + layer.mlp(1.3 * h[i] + heard))


def test_a_molecule_is_the_same_in_any_batch_and_any_table(encoder):
    whole = encoder(torch.arange(6))
    torch.testing.assert_close(encoder(torch.tensor([5, 2, 2, 4])), whole[[5, 2, 2, 4]])
    alone = MoleculeGraphEncoder(tensors(["c1ccccc1"]), width=16)
    alone.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(alone(torch.tensor([0])), whole[[2]])


def test_the_numbering_of_atoms_changes_nothing(encoder):
    whole = encoder(torch.arange(6))
    torch.testing.assert_close(whole[0], whole[5])
    assert not torch.allclose(whole[0], whole[3])


def test_a_molecule_without_atoms_is_the_learned_vector(encoder):
    torch.testing.assert_close(encoder(torch.tensor([1, 1])), encoder.missing_embedding.expand(2, 16))


def test_in_training_a_share_counts_as_unknown(encoder):
    encoder.drop = 0.25
    drug = torch.full((4000,), 4)
    assert not (encoder(drug) == encoder.missing_embedding).all(1).any()
    share = (encoder.train()(drug) == encoder.missing_embedding).all(1).float().mean()
    assert share == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("drug", [[0, 4], [3], [1]], ids=["some", "no bonds", "no atoms"])
def test_every_parameter_gets_a_gradient(encoder, drug):
    encoder(torch.tensor(drug)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_the_state_holds_no_molecule(encoder):
    assert not {"atom", "bond", "bond_index"} & set(encoder.state_dict())
    packed, more = pack_graphs(SMILES), pack_graphs(["N"])
    wider = {name: torch.from_numpy(values) for name, values in join_graphs(packed, more).items()}
    again = MoleculeGraphEncoder(PackedGraphs(**wider), width=16).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(torch.arange(6)), encoder(torch.arange(6)))
    assert np.isfinite(again(torch.tensor([6])).detach().numpy()).all()
