"""Treatments to predict: drugs by name or structure, new ones with vectors of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from torchcell.drug_response.datamodule import ResponseDataModule
from torchcell.drug_response.molecules import Annotation, MoleculeTable, Morgan
from torchcell.drug_response.simulate import simulated_response
from torchcell.io.errors import InputError

SPLIT = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


@pytest.fixture(scope="module")
def module() -> ResponseDataModule:
    record = simulated_response(n_drugs=12, doses=[1.0, 10.0], n_genes=20)
    return ResponseDataModule(record, SPLIT, Morgan(bits=64))


def write(folder: Path, rows: list[str]) -> str:
    path = folder / "asked.csv"
    path.write_text("\n".join(["drug,smiles,cell_line,dose_value,time", *rows]) + "\n")
    return str(path)


def test_known_drugs_stand_on_their_lines_mean_control(module, tmp_path):
    table = module.spec.molecules
    name, line = table.id[3], module.spec.lines[1]
    asked = module.read_request(write(tmp_path, [f"{name},,{line},3.0,24"]), module.spec)
    samples = module.pack(asked, module.spec)
    batch = samples[torch.tensor([0])]
    assert batch.drug.tolist() == [3]
    assert batch.line.tolist() == [1]
    assert torch.equal(batch.input_control[0], module.spec.line_control[1])
    assert torch.isnan(batch.target).all()
    assert batch.log_dose.item() == pytest.approx(np.log10(3.0), abs=1e-6)
    assert module.extend_spec(asked, module.spec) is module.spec


def test_a_structure_finds_its_drug_under_any_name_and_a_new_one_gets_a_row(module, tmp_path):
    table = module.spec.molecules
    line = module.spec.lines[0]
    path = write(tmp_path, [f"alias,{table.smiles[2]},{line},1.0,24", f"fresh,CCCCCCO,{line},1.0,24"])
    asked = module.read_request(path, module.spec)
    wider = module.extend_spec(asked, module.spec)
    held = wider.molecules
    assert asked.drug.tolist() == [table.id[2], "fresh"]
    assert len(held.id) == len(table.id) + 1
    assert torch.equal(held.vectors[:-1], table.vectors)
    np.testing.assert_array_equal(held.vectors[-1].numpy(), Morgan(bits=64).vectors(["CCCCCCO"])[0])
    assert not held.trained[-1]


def test_what_the_model_cannot_know_is_named(module, tmp_path):
    line = module.spec.lines[0]
    with pytest.raises(InputError, match="lines that the model was not trained on: 'A376'.*A375"):
        module.read_request(write(tmp_path, [f"{module.spec.molecules.id[0]},,A376,1.0,24"]), module.spec)
    with pytest.raises(InputError, match="no SMILES: 'nobody'"):
        module.read_request(write(tmp_path, [f"nobody,,{line},1.0,24"]), module.spec)
    with pytest.raises(InputError, match="negative"):
        module.read_request(write(tmp_path, [f"x,CCO,{line},-1.0,24"]), module.spec)


def h5ad(folder: Path, record, control: np.ndarray | None = None, basal: np.ndarray | None = None) -> str:
    """The samples of a record as a request, with these controls and basal profiles or none."""
    adata = record.to_anndata()
    for part in list(adata.layers):
        del adata.layers[part]
    for part, values in (("control", control), ("basal", basal)):
        if values is not None:
            adata.layers[part] = values
    adata.write_h5ad(folder / "asked.h5ad")
    return str(folder / "asked.h5ad")


def test_own_controls_are_kept_and_only_rows_without_one_get_the_lines_mean(module, tmp_path):
    """They used to be written over by the training mean of the line, all of them and in silence."""
    record = module.record_whole.subset(np.arange(3))
    own = np.random.default_rng(0).normal(size=record.control.shape).astype(np.float32)
    own[1] = np.nan
    asked = module.read_request(h5ad(tmp_path, record, own), module.spec)
    mean = module.spec.line_control[module.spec.lines.index(record.cell_line[1])]
    np.testing.assert_array_equal(asked.control[[0, 2]], own[[0, 2]])
    np.testing.assert_array_equal(asked.control[1], mean)
    batch = module.pack(asked, module.spec)[torch.arange(3)]
    assert torch.equal(batch.basal, batch.input_control), "without a layer basal the control is the basal profile"
    basal = own + 1
    asked = module.read_request(h5ad(tmp_path, record, own, basal), module.spec)
    np.testing.assert_array_equal(asked.basal[[0, 2]], basal[[0, 2]])
    np.testing.assert_array_equal(asked.basal[1], asked.control[1])
    bare = module.read_request(h5ad(tmp_path, record), module.spec)
    np.testing.assert_array_equal(bare.control[1], mean)


def test_a_further_line_needs_a_control_of_its_own(module, tmp_path):
    record = module.record_whole.subset(np.arange(3))
    record = replace(record, cell_line=np.array([record.cell_line[0], "A376", record.cell_line[2]]))
    own = np.full(record.control.shape, np.nan, dtype=np.float32)
    own[1] = 7
    asked = module.read_request(h5ad(tmp_path, record, own), module.spec)
    batch = module.pack(asked, module.spec)[torch.arange(3)]
    assert batch.line[1] == -1
    assert (batch.input_control[1] == 7).all()
    own[0], own[1] = 7, np.nan
    with pytest.raises(InputError, match="not trained on: 'A376'.*A375.*needs a layer 'control'"):
        module.read_request(h5ad(tmp_path, record, own), module.spec)


def test_where_basal_profiles_are_no_controls_each_is_filled_from_its_own_mean(tmp_path):
    record = simulated_response(n_drugs=8, doses=[1.0], n_genes=20)
    record = replace(record, basal=record.control + 1, control=np.zeros_like(record.control))
    module = ResponseDataModule(record, SPLIT, Morgan(bits=64))
    few = module.record_whole.subset(np.arange(2))
    asked = module.read_request(h5ad(tmp_path, few, few.control), module.spec)
    mean = module.spec.line_basal[module.spec.lines.index(few.cell_line[0])]
    np.testing.assert_array_equal(asked.basal[0], mean)
    assert not asked.control.any()
    few = replace(few, cell_line=np.array(["A376", few.cell_line[1]]))
    with pytest.raises(InputError, match="not trained on: 'A376'.*needs a layer 'basal'"):
        module.read_request(h5ad(tmp_path, few, few.control), module.spec)


def test_a_known_drug_with_another_structure_is_refused_and_another_spelling_is_not(module, tmp_path):
    table, line = module.spec.molecules, module.spec.lines[0]
    name, smiles = table.id[3], table.smiles[3]
    with pytest.raises(InputError, match=f"drug '{name}' has the SMILES 'CCCCCCO', and the model was trained with"):
        module.read_request(write(tmp_path, [f"{name},CCCCCCO,{line},1.0,24"]), module.spec)
    from rdkit import Chem

    spelt = Chem.MolToSmiles(Chem.MolFromSmiles(smiles), doRandom=True, canonical=False)
    asked = module.read_request(write(tmp_path, [f"{name},{spelt},{line},1.0,24"]), module.spec)
    assert asked.drug.tolist() == [name]


def test_a_structure_that_is_told_once_is_known_in_all_rows_of_its_drug(module, tmp_path):
    line = module.spec.lines[0]
    rows = [f"fresh,CCCCCCO,{line},1.0,24", f"fresh,,{line},3.0,24"]
    assert module.read_request(write(tmp_path, rows), module.spec).drug.tolist() == ["fresh"] * 2
    alias = f"alias,{module.spec.molecules.smiles[2]},{line},1.0,24"
    asked = module.read_request(write(tmp_path, [alias, f"alias,,{line},3.0,24"]), module.spec)
    assert asked.drug.tolist() == [module.spec.molecules.id[2]] * 2


def tabled(folder: Path, known: int) -> ResponseDataModule:
    """Trained on a table with vectors of the first drugs, and a learned vector for the others."""
    record = simulated_response(n_drugs=12, doses=[1.0], n_genes=20)
    made = Morgan(bits=32)(record)
    np.savez(folder / "table.npz", ids=made.smiles[:known], vectors=made.vectors[:known])
    policy = "error" if known == len(made) else "learned"
    return ResponseDataModule(record, SPLIT, MoleculeTable(str(folder / "table.npz")), missing_molecules=policy)


def test_a_drug_that_the_table_of_vectors_lacks_is_refused_by_name(tmp_path):
    """Its vector of zeros used to be taken for a molecule."""
    module = tabled(tmp_path, known=12)
    line, drug = module.spec.lines[0], module.spec.molecules.id[0]
    with pytest.raises(InputError, match="no vector for: 'fresh'; MoleculeTable can't make any: .*none of 1 drugs"):
        module.read_request(write(tmp_path, [f"{drug},,{line},1,24", f"fresh,CCCCCCO,{line},1,24"]), module.spec)
    held, keep = module.spec.molecules, torch.arange(11)
    names = {"id": held.id[:11], "smiles": held.smiles[:11]}
    tensors = {name: getattr(held, name)[keep] for name in ("vectors", "known", "trained")}
    spec = replace(module.spec, molecules=replace(held, **names, **tensors))
    last = module.spec.molecules.smiles[11]
    rows = [f"listed,{last},{line},1,24", f"fresh,CCCCCCO,{line},1,24"]
    with pytest.raises(InputError, match="no vector for: 'fresh'; MoleculeTable has no vector of them"):
        module.read_request(write(tmp_path, rows), spec)
    asked = module.read_request(write(tmp_path, rows[:1]), spec)
    assert module.extend_spec(asked, spec).molecules.known.all()


def test_a_new_drug_borrows_alone_as_it_does_in_company_and_the_request_says_from_whom(tmp_path):
    """Trained with fallback=true a lone new drug was refused, and one beside a known one borrowed without a word."""
    record = simulated_response(n_drugs=12, doses=[1.0], n_genes=20)
    made = Morgan(bits=32)(record)
    np.savez(tmp_path / "table.npz", ids=made.smiles[:8], vectors=made.vectors[:8])
    module = ResponseDataModule(record, SPLIT, MoleculeTable(str(tmp_path / "table.npz"), fallback=True))
    assert any("Borrowed vectors" in note and f"{made.id[8]} from " in note for note in module.notes())
    line = record.cell_line[0]
    path = write(tmp_path, [f"fresh,CCCCCCO,{line},1,24"])
    with pytest.warns(UserWarning, match="have the vector of the most similar molecule: 'fresh from ") as told:
        asked = module.read_request(path, module.spec)
    owner = asked.molecules.borrowed["fresh"]
    assert f"fresh from {owner}" in str(told[0].message)
    held = module.extend_spec(asked, module.spec).molecules
    np.testing.assert_array_equal(held.vectors[-1], made.vectors[made.smiles == owner][0])


@pytest.mark.parametrize("gone", [False, True], ids=["no row", "no file"])
def test_a_model_that_learned_a_vector_for_unknown_molecules_takes_it_and_says_so(tmp_path, gone):
    module = tabled(tmp_path, known=8)
    line = module.spec.lines[0]
    if gone:
        (tmp_path / "table.npz").unlink()
    with pytest.warns(UserWarning, match="drugs without a vector: 'fresh'; MoleculeTable .*the model learned"):
        asked = module.read_request(write(tmp_path, [f"fresh,CCCCCCO,{line},1,24"]), module.spec)
    held = module.extend_spec(asked, module.spec).molecules
    assert held.id[-1] == "fresh"
    assert not held.known[-1]


def test_annotations_that_a_request_does_not_tell_leave_a_drug_without_a_vector(tmp_path):
    record = simulated_response(n_drugs=12, doses=[1.0], n_genes=20)
    module = ResponseDataModule(record, SPLIT, Annotation(["targets"]), missing_molecules="drop")
    with pytest.raises(InputError, match="no vector for: 'fresh'; Annotation can't make any: .*no column 'targets'"):
        module.read_request(write(tmp_path, [f"fresh,CCCCCCO,{record.cell_line[0]},1,24"]), module.spec)
