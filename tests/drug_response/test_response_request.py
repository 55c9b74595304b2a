"""Treatments to predict: what a request tells, and rows that can't be asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from torchcell.drug_response.record import UNKNOWN_PLATE
from torchcell.drug_response.simulate import simulate_response
from torchcell.drug_response.table import read_response_request
from torchcell.io.errors import InputError

GENES = ["G1", "G2", "G3"]


def asked(folder: Path, text: str) -> Path:
    (folder / "asked.csv").write_text(text)
    return folder / "asked.csv"


def test_drugs_are_told_by_name_by_structure_or_both(tmp_path: Path) -> None:
    text = "drug,smiles,cell_line,dose_value,time\naspirin,,A375,10,24\n,CCO,PC3,500 nM,6 h\nethane,CC,PC3,1 µM,1 d\n"
    record = read_response_request(asked(tmp_path, text), GENES)
    assert record.drug.tolist() == ["aspirin", "CCO", "ethane"]
    assert record.smiles is not None
    assert record.smiles.tolist() == ["", "CCO", "CC"]
    np.testing.assert_allclose(record.dose_value, [10, 0.5, 1])
    np.testing.assert_allclose(record.time, [24, 6, 24])
    assert record.sample_id.tolist() == ["row 2", "row 3", "row 4"]
    assert record.treated.shape == record.control.shape == (3, 3)
    assert np.isnan(record.treated).all()
    assert np.isnan(record.control).all()


def test_other_names_ids_and_plates_are_read(tmp_path: Path) -> None:
    text = "id,compound,cell_line,dose_value,time,plate\na,aspirin,A375,10,24,P7\nb,aspirin,A375,1,24,\n"
    columns = {"perturbation": "compound", "sample_id": "id"}
    record = read_response_request(asked(tmp_path, text), GENES, columns)
    assert record.drug.tolist() == ["aspirin"] * 2
    assert record.sample_id.tolist() == ["a", "b"]
    assert record.plate.tolist() == ["P7", UNKNOWN_PLATE]
    with pytest.raises(InputError, match="no column 'compond'; the nearest are .'compound'"):
        read_response_request(asked(tmp_path, text), GENES, {"drug": "compond"})
    with pytest.raises(InputError, match="no internal column 'doses'; the nearest are .'dose'"):
        read_response_request(asked(tmp_path, text), GENES, {"doses": "um"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cell_line,dose_value,time\nA375,1,24\n",
            "lacks 1 column.s.: 'perturbation' or 'drug' or 'smiles'; it has 'cell_line'",
        ),
        (
            "drug,line\nx,A375\n",
            "lacks 3 column.s.: 'cell_line', 'dose_value' or 'dose', 'time'; it has 'drug', 'line'",
        ),
        ("drug,cell_line,dose_value,time\nx,A375,,24\n", "no dose in µM: 'row 2'"),
        ("drug,cell_line,dose_value,time\nx,A375,-1,24\n", "a negative dose in µM: 'row 2'"),
        ("drug,cell_line,dose_value,time\nx,A375,much,24\n", "dose_value holds what is no number .*'row 2: much'"),
        ("drug,cell_line,dose_value,time\nx,A375,1,\n", "no time in h: 'row 2'"),
        ("drug,cell_line,dose_value,time\nx,,1,24\n", "no cell_line: 'row 2'"),
        ("drug,smiles,cell_line,dose_value,time\n,,A375,1,24\n", "no drug: 'row 2'"),
        (
            "drug,smiles,cell_line,dose_value,time\nx,C1CC,A375,1,24\nx,C1CC,A375,2,24\n,C(,A375,1,24\n",
            "asked.csv: rdkit rejects 2 SMILES: 'row 2, x: C1CC', 'row 4: C[(]'",
        ),
        ("sample_id,drug,cell_line,dose_value,time\na,x,A375,1,24\na,x,PC3,1,24\n", "sample ids used twice: 'a'"),
    ],
)
def test_a_row_that_can_not_be_asked_for_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_response_request(asked(tmp_path, text), GENES)


def test_an_h5ad_brings_its_own_controls_and_its_genes_are_matched_by_name(tmp_path: Path) -> None:
    record = simulate_response(n_drugs=4, n_lines=1, n_genes=10, coverage=1).response
    record.to_anndata()[:, ::-1].copy().write_h5ad(tmp_path / "asked.h5ad")
    back = read_response_request(tmp_path / "asked.h5ad", record.genes)
    np.testing.assert_array_equal(back.control, record.control)
    assert back.drug.tolist() == record.drug.tolist()
    assert back.sample_id.tolist() == record.sample_id.tolist()
    assert np.isnan(back.treated).all()
    with pytest.raises(InputError, match=r"1 of 11 genes are not measured: 'G0011'; name them as"):
        read_response_request(tmp_path / "asked.h5ad", [*record.genes, "G0011"])


def test_flagged_wells_are_left_out_and_a_flag_is_true_or_false(tmp_path: Path) -> None:
    """The text 'False' used to count as true, so that every row was left out."""
    record = simulate_response(n_drugs=4, n_lines=1, n_genes=10, coverage=1).response
    adata, path = record.to_anndata(), tmp_path / "asked.h5ad"
    adata.obs["is_control"] = [True] + [False] * (len(adata) - 1)
    adata.write_h5ad(path)
    assert read_response_request(path, record.genes).sample_id.tolist() == record.sample_id[1:].tolist()
    adata.obs["is_control"] = ["False"] * len(adata)
    adata.write_h5ad(path)
    assert len(read_response_request(path, record.genes)) == len(adata)
    adata.obs["is_control"] = ["no"] * len(adata)
    adata.write_h5ad(path)
    with pytest.raises(InputError, match="is_control holds 'no'; it must be true or false"):
        read_response_request(path, record.genes)
    adata.obs["is_control"] = 1
    adata.write_h5ad(path)
    with pytest.raises(InputError, match="has no row to predict: .* flagged as is_control"):
        read_response_request(path, record.genes)
    adata[:0].copy().write_h5ad(path)
    with pytest.raises(InputError, match="has no row to predict: it is empty"):
        read_response_request(path, record.genes)


@pytest.mark.parametrize("part", ["control", "basal"])
def test_a_profile_is_given_whole_or_not_at_all(tmp_path: Path, part: str) -> None:
    record = simulate_response(n_drugs=4, n_lines=1, n_genes=10, coverage=1).response
    adata = record.to_anndata()
    values = record.control.copy()
    values[0] = np.nan
    adata.layers[part] = sparse.csr_matrix(values)
    adata.write_h5ad(tmp_path / "asked.h5ad")
    back = getattr(read_response_request(tmp_path / "asked.h5ad", record.genes), part)
    np.testing.assert_array_equal(back, values)
    values[2, 3] = np.nan
    adata.layers[part] = values
    adata.write_h5ad(tmp_path / "asked.h5ad")
    with pytest.raises(InputError, match=rf"1 sample\(s\) with {part} .* not finite: '{record.sample_id[2]}'"):
        read_response_request(tmp_path / "asked.h5ad", record.genes)
    assert np.isfinite(values[:, :3]).all(1).sum() == len(record) - 1
    read_response_request(tmp_path / "asked.h5ad", record.genes[:3])  # of the genes that are asked for


def test_an_h5ad_without_controls_need_not_have_the_models_genes(tmp_path: Path) -> None:
    adata = simulate_response(n_drugs=4, n_lines=1, n_genes=10, coverage=1).response.to_anndata()
    del adata.layers["control"]
    adata.write_h5ad(tmp_path / "asked.h5ad")
    record = read_response_request(tmp_path / "asked.h5ad", GENES)
    assert record.genes.tolist() == GENES
    assert np.isnan(record.control).all()
    assert record.basal is None
