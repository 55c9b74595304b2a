from __future__ import annotations

import pytest

from torchcell.drug_response.structures import canonical, inchikey, refuse_rejected, scaffold
from torchcell.io.errors import InputError


def test_spellings_of_one_molecule_are_one():
    assert canonical("OCC") == canonical("C(O)C") == "CCO"
    assert inchikey("OCC") == "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"
    assert scaffold("CC1CCCCC1") == scaffold("OC1CCCCC1") == "C1CCCCC1"
    assert scaffold("CCO") == ""


def test_stereochemistry_stands_in_the_smiles_and_not_in_the_scaffold():
    left, right = "C[C@H](O)c1ccccc1", "C[C@@H](O)c1ccccc1"
    assert canonical(left) != canonical(right)
    assert inchikey(left)[:14] == inchikey(right)[:14]
    assert scaffold(left) == scaffold(right)


def test_a_smiles_ends_at_the_first_blank():
    assert canonical("C[C@H](O)CC |&1:1") == canonical("C[C@H](O)CC")


@pytest.mark.parametrize("bad", ["C(", "nonsense", "C1CC", "c1cccc1", "C(C)(C)(C)(C)C"])
@pytest.mark.parametrize("ask", [canonical, inchikey, scaffold])
def test_what_rdkit_rejects_names_the_drug_and_the_smiles(ask, bad, capfd):
    with pytest.raises(InputError) as error:
        ask(bad, "aspirin")
    assert repr(bad) in str(error.value)
    assert "'aspirin'" in str(error.value)
    assert capfd.readouterr().err == ""


def test_all_rejected_smiles_stand_in_one_error():
    """The first alone was named: a list of fifty bad ones took fifty tries."""
    bad = [(f"drug {i}", "C1" + "C" * (i + 1)) for i in range(50)]
    with pytest.raises(InputError, match="mine: rdkit rejects 50 SMILES: 'drug 0: C1C'.*'drug 49: C1C+'; mend them"):
        refuse_rejected("mine", [("whole", "CCO"), ("unknown", ""), *bad])
    refuse_rejected("mine", [("whole", "CCO"), ("unknown", "")])
