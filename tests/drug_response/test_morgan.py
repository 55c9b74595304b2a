from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate

from tests.drug_response.small_drugs import drugs
from torchcell.drug_response.molecules import Morgan
from torchcell.io.errors import InputError


def test_each_drug_has_its_bits_and_one_without_a_structure_none():
    made = Morgan(bits=256)(drugs())
    assert made.vectors.shape == (6, 256)
    assert made.vectors.dtype == np.float32
    assert set(np.unique(made.vectors)) == {0, 1}
    assert made.known.tolist() == [name != "blank" for name in made.id.tolist()]
    assert (made.vectors.any(1) == made.known).all()


def test_the_spelling_of_a_structure_changes_nothing():
    one, other = Morgan()(drugs({"d": "OC(=O)C"})), Morgan()(drugs({"d": "CC(O)=O"}))
    np.testing.assert_array_equal(one.vectors, other.vectors)


def test_its_features_make_the_same_vectors_again():
    made = Morgan(bits=128, radius=1)(drugs())
    again = instantiate(made.features)(drugs())
    np.testing.assert_array_equal(made.vectors, again.vectors)


def test_rejected_structures_are_named_with_their_drugs():
    with pytest.raises(InputError, match=r"rdkit rejects 2 SMILES: 'broken: C1CC', 'open: C\('"):
        Morgan()(drugs({"fine": "CC", "broken": "C1CC", "open": "C("}))
    with pytest.raises(InputError, match="0 bits"):
        Morgan(bits=0)(drugs())


@pytest.mark.mirror
def test_the_published_fingerprints_are_reproduced(mirror: Path):
    with np.load(mirror / "l1000" / "kpgt2304_ecfp2048_14drugs.npz", allow_pickle=False) as held:
        smiles, ecfp = held["smiles"].tolist(), held["ecfp4"]
    np.testing.assert_array_equal(Morgan().vectors(smiles), ecfp)
