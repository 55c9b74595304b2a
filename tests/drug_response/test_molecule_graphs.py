from __future__ import annotations

import numpy as np
import pytest
from hydra.utils import instantiate
from torch_geometric.utils import from_smiles

from tests.drug_response.small_drugs import SMILES, drugs
from torchcell.drug_response.molecules import MoleculeGraphs, join_graphs, pack_graphs
from torchcell.io.errors import InputError


def test_packed_molecules_are_those_of_from_smiles():
    texts = [*SMILES.values(), "", "C"]
    packed = pack_graphs(texts)
    for row, text in enumerate(texts):
        atoms = slice(packed["atom_ptr"][row], packed["atom_ptr"][row + 1])
        bonds = slice(packed["bond_ptr"][row], packed["bond_ptr"][row + 1])
        if not text:
            assert atoms.start == atoms.stop
            assert bonds.start == bonds.stop
            continue
        graph = from_smiles(text)
        np.testing.assert_array_equal(packed["atom"][atoms], graph.x)
        np.testing.assert_array_equal(packed["bond"][bonds], graph.edge_attr)
        np.testing.assert_array_equal(packed["bond_index"][:, bonds], graph.edge_index)


def test_packing_in_two_steps_is_packing_in_one():
    texts = list(SMILES.values())
    joined, whole = join_graphs(pack_graphs(texts[:2]), pack_graphs(texts[2:])), pack_graphs(texts)
    for name, values in whole.items():
        np.testing.assert_array_equal(joined[name], values)


def test_graphs_come_with_fingerprints_and_are_made_again_by_their_features():
    made = MoleculeGraphs(bits=64)(drugs())
    again = instantiate(made.features)(drugs())
    assert made.vectors.shape == (6, 64)
    assert made.graphs is not None
    assert again.graphs is not None
    for name, values in made.graphs.items():
        assert values.dtype == np.int64
        np.testing.assert_array_equal(again.graphs[name], values)


def test_structures_without_a_graph_are_refused_by_name():
    with pytest.raises(InputError, match=r"'C1CC' of drug 'broken'"):
        pack_graphs(["C1CC"], ["broken"])
    with pytest.raises(InputError, match=r"drug 'salt': an atom or bond of '\[C\+7\]' has no category"):
        pack_graphs(["[C+7]"], ["salt"])
