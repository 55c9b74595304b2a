from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate

from tests.drug_response.small_drugs import SMILES, drugs
from torchcell.drug_response.molecules import MoleculeTable
from torchcell.drug_response.simulate import simulate_response
from torchcell.drug_response.structures import inchikey
from torchcell.io.errors import InputError

NAMES = sorted(SMILES)
VECTORS = np.random.default_rng(0).normal(size=(len(NAMES), 4)).astype(np.float32)


def write(folder: Path, ids: list[str], vectors: np.ndarray = VECTORS, ending: str = ".npz", column: str = "id") -> str:
    path = folder / f"table{ending}"
    if ending == ".npz":
        np.savez(path, ids=np.array(ids), vectors=vectors)
    elif ending == ".h5ad":
        anndata.AnnData(vectors, obs=pd.DataFrame(index=ids)).write_h5ad(path)
    else:
        frame = pd.DataFrame(vectors, columns=[f"v{i}" for i in range(vectors.shape[1])])
        frame.assign(**{column: ids}).to_parquet(path)
    return str(path)


def spelled(key: str) -> list[str]:
    if key == "id":
        return NAMES
    if key == "smiles":
        return ["OC(C)=O", "OCC", "C1=CC=CC=C1", "c1(O)ccccc1", "c1ccccc1C"]
    keys = [inchikey(SMILES[name]) for name in NAMES]
    return [name[:14] + "-AAAAAAAAAA-N" for name in keys] if key == "inchikey_block" else keys


@pytest.mark.parametrize("key", ["smiles", "inchikey", "inchikey_block", "id"])
@pytest.mark.parametrize("ending", [".npz", ".parquet", ".h5ad"])
def test_rows_are_found_by_every_key_in_every_file(tmp_path, key, ending):
    made = MoleculeTable(write(tmp_path, spelled(key), ending=ending), key)(drugs())
    assert made.id[~made.known].tolist() == ["blank"]
    np.testing.assert_array_equal(made.vectors[made.known], VECTORS)
    again = instantiate(made.features)(drugs())
    np.testing.assert_array_equal(again.vectors, made.vectors)


def test_a_column_of_the_record_can_be_the_key_and_arrays_have_any_name(tmp_path):
    np.savez(tmp_path / "t.npz", code=np.array(["B1", "B2"]), kpgt=VECTORS[:2])
    record = drugs(columns={"pert_id": np.where(drugs().drug == "acid", "B2", "")})
    made = MoleculeTable(str(tmp_path / "t.npz"), "pert_id", "code", "kpgt")(record)
    assert made.id[made.known].tolist() == ["acid"]
    np.testing.assert_array_equal(made.vectors[0], VECTORS[1])
    with pytest.raises(InputError, match=r"no array 'ids', 'vectors'; it holds \['code', 'kpgt'\]"):
        MoleculeTable(str(tmp_path / "t.npz"), "pert_id")(record)
    with pytest.raises(InputError, match="data.molecules.key=pert: the nearest are"):
        MoleculeTable(str(tmp_path / "t.npz"), "pert", "code", "kpgt")(record)


def test_a_drug_outside_the_table_borrows_from_the_most_similar_and_says_so(tmp_path):
    path = write(tmp_path, [SMILES[name] for name in NAMES])
    record = drugs({**SMILES, "ethylbenzene": "CCc1ccccc1"})
    assert MoleculeTable(path)(record).known.tolist() == [
        name != "ethylbenzene" for name in sorted([*NAMES, "ethylbenzene"])
    ]
    made = MoleculeTable(path, fallback=True)(record)
    assert made.known.all()
    assert made.borrowed == {"ethylbenzene": SMILES["toluene"]}
    np.testing.assert_array_equal(made.vectors[made.id == "ethylbenzene"][0], VECTORS[NAMES.index("toluene")])
    by_name = MoleculeTable(write(tmp_path, NAMES), "id", fallback=True)(record)
    assert by_name.borrowed == {"ethylbenzene": "toluene"}
    np.testing.assert_array_equal(by_name.vectors, made.vectors)


def test_a_drug_without_a_structure_can_borrow_nothing(tmp_path):
    with pytest.raises(InputError, match="drugs without a structure.*: 'blank'; set data.molecules.fallback=false"):
        MoleculeTable(write(tmp_path, NAMES), "id", fallback=True)(drugs())


def test_one_molecule_twice_must_have_one_vector(tmp_path):
    ids = [*spelled("smiles"), "CCO"]
    same = np.vstack([VECTORS, VECTORS[1]])
    assert MoleculeTable(write(tmp_path, ids, same))(drugs()).known.sum() == 5
    with pytest.raises(InputError, match=r"1 row\(s\) with the smiles of another row and a different vector: 'CCO'"):
        MoleculeTable(write(tmp_path, ids, np.vstack([VECTORS, VECTORS[2]])))(drugs())


@pytest.mark.parametrize(("value", "row"), [(np.nan, "'benzene'"), (np.inf, "'benzene'"), (0.0, "'benzene'")])
def test_vectors_that_say_nothing_are_refused(tmp_path, value, row):
    vectors = VECTORS.copy()
    vectors[NAMES.index("benzene")] = value
    with pytest.raises(InputError, match=f"1 vector.* not finite or all zeros.*: {row}"):
        MoleculeTable(write(tmp_path, NAMES, vectors), "id")(drugs())


def test_bad_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="none of 6 drugs of toy is in the table by key=id.*'x0', 'x1', 'x2'"):
        MoleculeTable(write(tmp_path, [f"x{i}" for i in range(5)]), "id")(drugs())
    with pytest.raises(InputError, match="table.npz: rdkit rejects 2 SMILES: 'row 2: C1CC', 'row 4: C[(]'"):
        MoleculeTable(write(tmp_path, ["C", "C1CC", "CC", "C(", "CCCC"]))(drugs())
    with pytest.raises(InputError, match=r"1 row\(s\) without a id: 'row 1'"):
        MoleculeTable(write(tmp_path, ["", *NAMES[1:]]), "id")(drugs())
    with pytest.raises(InputError, match="no such file"):
        MoleculeTable(str(tmp_path / "none.npz"))(drugs())


@pytest.mark.mirror
def test_the_kpgt_table_is_read_by_structure(mirror: Path):
    path = str(mirror / "l1000" / "kpgt2304_ecfp2048_14drugs.npz")
    record = drugs({"hexabromide": "BrC1C(Br)C(Br)C(Br)C(Br)C1Br", "water": "O"})
    made = MoleculeTable(path, ids="smiles", vectors="kpgt")(record)
    assert made.vectors.shape == (2, 2304)
    assert made.known.tolist() == [True, False]


def test_a_checkpoints_table_is_found_again_from_another_directory(tmp_path, monkeypatch):
    """The path stood in the checkpoint as it was typed, and led nowhere from elsewhere."""
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    np.savez("vectors.npz", ids=np.array(["CCO", "CCN"]), vectors=np.eye(2, dtype=np.float32))
    record = simulate_response(n_drugs=2).response
    record = replace(record, smiles=np.where(record.drug == record.drug[0], "CCO", "CCN"))
    features = dict(MoleculeTable("vectors.npz")(record).features)
    assert features["path"] == "vectors.npz"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"it is relative, and not in {tmp_path}"):
        MoleculeTable("vectors.npz")(record)
    target = features.pop("_target_")
    assert target.endswith("MoleculeTable")
    assert MoleculeTable(**features)(record).known.all()
