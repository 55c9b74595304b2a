from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.drug_response.small_drugs import drugs
from torchcell.drug_response.molecules import MoleculeGraphs, Morgan, coverage, drug_structures, tanimoto
from torchcell.io.errors import InputError


def test_distinct_drugs_stand_in_the_order_of_their_names():
    names, smiles = drug_structures(drugs())
    assert names.tolist() == ["acid", "alcohol", "benzene", "blank", "phenol", "toluene"]
    assert smiles.tolist() == ["CC(=O)O", "CCO", "c1ccccc1", "", "Oc1ccccc1", "Cc1ccccc1"]


def test_a_record_without_structures_has_drugs_all_the_same():
    names, smiles = drug_structures(replace(drugs(), smiles=None))
    assert len(names) == 6
    assert set(smiles.tolist()) == {""}


def test_spellings_of_one_structure_agree_and_two_structures_of_a_drug_are_refused():
    record = drugs({"ethanol": "CCO", "other": "CC"})
    spelled = record.smiles.copy()
    spelled[0] = "OCC"
    assert drug_structures(replace(record, smiles=spelled))[1].tolist() == ["CCO", "CC"]
    spelled[0] = "CCN"
    with pytest.raises(InputError, match=r"1 drug\(s\) with several structures: 'ethanol'.*'CCN', 'CCO'"):
        drug_structures(replace(record, smiles=spelled))


def test_coverage_counts_drugs_with_a_vector_in_each_part():
    record = drugs()
    record = replace(record, molecules=Morgan(bits=32)(record))
    part = np.where(np.isin(record.drug, ["blank", "acid"]), "test", "train")
    assert coverage(record, part) == {"train": (4, 4), "test": (1, 2)}


def test_joined_tables_keep_rows_graphs_and_known():
    first, second = MoleculeGraphs(bits=32)(drugs()), MoleculeGraphs(bits=32)(drugs({"new": "CCN", "bare": ""}))
    both = first.joined(second)
    assert both.id.tolist() == [*first.id.tolist(), "bare", "new"]
    assert both.known.tolist() == [*first.known.tolist(), False, True]
    assert both.graphs is not None
    assert second.graphs is not None
    last = slice(both.graphs["atom_ptr"][-2], both.graphs["atom_ptr"][-1])
    np.testing.assert_array_equal(both.graphs["atom"][last], second.graphs["atom"])
    assert both.positions(np.array(["new", "acid"])).tolist() == [7, 0]


def test_tables_that_do_not_fit_are_not_joined():
    first = Morgan(bits=32)(drugs())
    with pytest.raises(InputError, match="32 features without graphs"):
        first.joined(MoleculeGraphs(bits=32)(drugs({"new": "C"})))
    with pytest.raises(InputError, match="stand in both tables: 'acid'"):
        first.joined(Morgan(bits=32)(drugs({"acid": "C"})))


def test_tanimoto_is_shared_over_set_in_either():
    rng = np.random.default_rng(0)
    bits = (rng.random((5, 40)) < 0.3).astype(np.float32)
    expected = [[(a * b).sum() / np.maximum(a, b).sum() for b in bits] for a in bits]
    np.testing.assert_allclose(tanimoto(bits, bits), expected, rtol=1e-6)
    assert tanimoto(np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)).item() == 0
