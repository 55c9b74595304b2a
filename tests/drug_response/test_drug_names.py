"""A name for each structure, whatever the files call it."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.drug_response.drug_identity import drug_names
from torchcell.io.errors import InputError


def test_names_and_structures_become_one_to_one() -> None:
    names = np.array(["ethanol", "", "", "ethanol", "acid", "acid", "unknown", "twin"])
    smiles = np.array(["CCO", "OCC", "CCC", "", "CC(=O)O", "CCC(=O)O", "", "C(C)O"])
    named, keys = drug_names(names, smiles)
    acids = [f"acid ({key})" for key in keys[4:6]]
    assert named.tolist() == ["ethanol", "ethanol", "CCC", "ethanol", *acids, "unknown", "ethanol"]
    assert keys[0] == keys[1] == keys[7] != keys[2]
    assert keys[3] == keys[6] == ""


def test_smiles_that_rdkit_rejects_are_named_with_their_drug() -> None:
    with pytest.raises(InputError, match=r"rdkit rejects the SMILES 'C1CC' of drug 'open'"):
        drug_names(np.array(["open"]), np.array(["C1CC"]))
