"""A salt, its base and a solvate are one drug: for splits, replicates, requests and tables of vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from torchcell.drug_response.datamodule import ResponseDataModule
from torchcell.drug_response.drug_identity import ACIDS, drug_forms, drug_keys, one_structure, parent
from torchcell.drug_response.molecules import MoleculeTable, Morgan, drug_structures
from torchcell.drug_response.record import Response
from torchcell.drug_response.simulate import simulate_response
from torchcell.drug_response.splits import SPLITS
from torchcell.drug_response.structures import canonical
from torchcell.drug_response.table import response_file
from torchcell.io.errors import InputError

BASE = "CC(C)NCC(O)COc1cccc2ccccc12"
SALT = "[Cl-].CC(C)[NH2+]CC(O)COc1cccc2ccccc12"


def record(drug: list[str], smiles: list[str], **changes: object) -> Response:
    made = simulate_response().response
    made = made.subset(np.arange(len(drug)))
    same = {"dose_value": np.ones(len(drug), np.float32), "time": np.full(len(drug), 24, np.float32)}
    line = np.full(len(drug), "A375")
    given = {"drug": np.array(drug), "smiles": np.array(smiles), "inchikey": None, "cell_line": line, **same, **changes}
    return replace(made, **given)


@pytest.mark.parametrize(
    ("salt", "base"),
    [
        (SALT, BASE),
        (f"{BASE}.O.O.CS(C)=O", BASE),  # hydrate and solvate
        (f"{BASE}.{BASE}.OS(O)(=O)=O", BASE),  # hemisulfate
        ("[Na+].CC(=O)[O-]", "CC(=O)O"),
        ("[Ca+2].CC(=O)[O-].CC(=O)[O-]", "CC(=O)O"),
        (
            "CN1CCCN=C1/C=C/c1cccs1.O=C(O)c1cc2ccccc2c(Cc2c(O)c(C(=O)O)cc3ccccc23)c1O",
            r"CN1CCCN=C1/C=C/c1cccs1",
        ),  # pamoate
        ("C[N+](C)(C)CCO.O=C([O-])[C@H](O)[C@@H](O)C(=O)O", "C[N+](C)(C)CCO"),  # bitartrate
        ("NC(N)=O.Cl", "NC(N)=O"),
        ("[Na+].C[C@H](N)C(=O)[O-]", "C[C@H](N)C(=O)O"),  # the mirror image is another
    ],
)
def test_the_parent_molecule_is_what_is_left_without_counterions_and_solvents(salt, base):
    assert parent(salt) == parent(base) == canonical(base)


@pytest.mark.parametrize(
    "smiles",
    [
        "[Na+].[Cl-]", "[Li+].[Li+].[O-]C([O-])=O", "N.N.Cl[Pt]Cl", "O=[As]O[As]=O", "[K+].[C-]#N",
        "[Pt+2].NC1CCCCC1N.O=C([O-])C(=O)[O-]", *ACIDS, "C[N+](C)(C)CC(=O)[O-]",
    ],
)  # fmt: skip
def test_what_has_no_organic_fragment_or_is_a_complex_or_an_acid_alone_stays_whole(smiles):
    assert parent(smiles) == canonical(smiles)


def test_a_salt_and_its_base_are_one_drug_under_two_names():
    """They had two keys: a drug was trained on and held out at once."""
    found = record(
        ["propranolol", "Inderal", "acetate", "acid", "none"], [BASE, SALT, "CC(=O)[O-].[Na+]", "CC(=O)O", ""]
    )
    keys = drug_keys(found)
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert keys[4] == "none"
    assert drug_forms(found).tolist() == ["Inderal", "Inderal", "acetate", "acetate", "none"]


def test_an_inchikey_without_a_smiles_is_taken_as_it_is_and_joined_where_another_row_tells_its_molecule():
    salts_key = "ZMRUPTIKESYGQW-UHFFFAOYSA-N"  # of the hydrochloride
    alone = record(["base", "salt"], [BASE, ""], inchikey=np.array(["", salts_key]))
    assert len(set(drug_keys(alone))) == 2, "nothing here tells of which molecule it is"
    told = record(["base", "salt", "third"], [BASE, "", SALT], inchikey=np.array(["", salts_key, salts_key]))
    assert len(set(drug_keys(told))) == 1


def test_stereoisomers_are_held_out_together_and_are_no_replicates():
    found = record(["L", "D", "L sodium"], ["C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "[Na+].C[C@H](N)C(=O)[O-]"])
    assert len(set(drug_keys(found))) == 1
    assert drug_forms(found).tolist() == ["L", "D", "L"]


@pytest.mark.parametrize("method", ["condition", "cold_drug", "scaffold", "cold_drug_cell"])
def test_no_split_tears_a_salt_from_its_base(method):
    made = simulate_response(n_drugs=20, n_genes=4).response
    odd = np.arange(len(made)) % 2 == 1
    drug = np.where(odd, np.char.add(made.drug.astype(str), " tosylate"), made.drug)
    smiles = np.where(odd, np.char.add(made.smiles.astype(str), ".Cc1ccc(S(=O)(=O)O)cc1"), made.smiles)
    salts = replace(made, drug=drug, smiles=smiles)
    assert np.array_equal(SPLITS.make(salts, method).part, SPLITS.make(made, method).part)
    assert np.array_equal(salts.condition, made.condition)


def test_replicates_of_a_condition_may_be_of_a_salt_and_its_base():
    found = record(["base", "salt"], [BASE, SALT], plate=np.array(["P1", "P2"]))
    assert len(set(found.condition)) == 1
    rejected = record(["base", "salt"], ["no smiles", SALT])
    assert [text.split("|")[1] for text in rejected.condition.tolist()] == ["base", "salt"]


def test_salts_of_one_name_are_no_conflict_and_the_form_without_a_counterion_is_taken():
    names, smiles = drug_structures(record(["a", "a", "b"], [SALT, BASE, "CCO"]))
    assert names.tolist() == ["a", "b"]
    assert smiles.tolist() == [canonical(BASE), "CCO"]
    with pytest.raises(InputError, match="1 drug.*several structures: 'a'.*conflicting_smiles=first or majority"):
        drug_structures(record(["a", "a"], [BASE, "CCO"]))


def test_a_drug_with_two_molecules_takes_the_first_or_the_usual_one_where_that_is_wished():
    drug, smiles = ["a"] * 5 + ["b"], ["CCO", BASE, SALT, "", "CCN", "CCO"]
    found = record(drug, smiles, inchikey=np.array(["k1", "k2", "k3", "", "", "k1"]))
    assert one_structure(found, "error") is found
    first = one_structure(found, "first")
    assert first.smiles.tolist() == ["CCO", "CCO", "CCO", "", "CCO", "CCO"]
    assert first.inchikey.tolist() == ["k1", "k1", "k1", "", "k1", "k1"]
    usual = one_structure(found, "majority")
    assert usual.smiles.tolist() == [BASE, BASE, SALT, "", BASE, "CCO"]
    assert usual.dropped == {"samples whose SMILES gave way to another one of their drug (majority)": 2}
    with pytest.raises(InputError, match="conflicting_smiles='last': must be one of error, first, majority"):
        one_structure(found, "last")


def test_a_file_with_two_molecules_for_one_drug_is_read_as_its_config_says(tmp_path):
    made = record(["a", "a", "b", "b"], ["CCO", "CCN", "CCC", "CCC"])
    made.to_anndata().write_h5ad(tmp_path / "plate.h5ad")
    with pytest.raises(InputError, match="several structures: 'a'"):
        Morgan()(response_file(tmp_path / "plate.h5ad"))
    found = response_file(tmp_path / "plate.h5ad", conflicting_smiles="first")
    assert Morgan()(found).smiles.tolist() == ["CCO", "CCC"]


def test_a_request_names_a_drug_by_the_smiles_of_its_salt(tmp_path):
    made = simulate_response(n_drugs=12, n_genes=4).response
    split = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}
    spec = ResponseDataModule(made, split, Morgan(bits=32)).spec
    base = dict(zip(made.drug.tolist(), made.smiles.tolist(), strict=True))
    name = str(made.drug[0])
    rows = {"cell_line": made.cell_line[0], "dose_value": 1.0, "time": 24.0}
    salt = f"{base[name]}.Cl"
    pd.DataFrame([{"drug": "brand", "smiles": salt, **rows}, {"drug": name, "smiles": salt, **rows}]).to_csv(
        tmp_path / "asked.csv", index=False
    )
    asked = ResponseDataModule.read_request(str(tmp_path / "asked.csv"), spec)
    assert asked.drug.tolist() == [name, name]
    assert len(asked.molecules) == 12


@pytest.mark.parametrize("key", ["smiles", "inchikey", "inchikey_block"])
def test_a_table_of_vectors_serves_the_salts_of_its_molecules(tmp_path, key):
    from torchcell.drug_response.structures import inchikey

    named = {"smiles": canonical, "inchikey": inchikey, "inchikey_block": lambda text: inchikey(text)[:14]}[key]
    ids = np.array([named(BASE), named("CCO")])
    np.savez(tmp_path / "vectors.npz", ids=ids, vectors=np.array([[1.0], [2.0]], dtype=np.float32))
    table = MoleculeTable(str(tmp_path / "vectors.npz"), key=key)(
        record(["salt", "other", "third"], [SALT, "CCO", "CCN"])
    )
    assert dict(zip(table.id.tolist(), table.vectors[:, 0].tolist(), strict=True)) == {
        "other": 2,
        "salt": 1,
        "third": 0,
    }
    assert table.known.tolist() == [True, True, False]


def test_a_salt_in_the_table_serves_its_base(tmp_path):
    np.savez(
        tmp_path / "v.npz", ids=np.array([SALT, f"{BASE}.OS(O)(=O)=O"]), vectors=np.array([[1.0], [3]], np.float32)
    )
    found = MoleculeTable(str(tmp_path / "v.npz"))(record(["base"], [BASE]))
    assert found.vectors.tolist() == [[1.0]]
