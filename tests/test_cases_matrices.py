"""Matrices and doses as other tools write them: each works, or is one line that says what to do.

Units beside a dose, several entries for one place of a sparse matrix, counts in ``raw``, no ``X``, spreadsheet errors
in a plate, values that are neither counts nor logs. Each was misread in silence, or refused without a usable word.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from torchcell.cells.backed import lognormalized
from torchcell.cells.record import CellExpression, moments
from torchcell.cells.table import Controls, MatrixOptions, Trained, cells_file, read_cells_request
from torchcell.drug_response.import_gct import import_gct
from torchcell.drug_response.molecules import MoleculeTable
from torchcell.drug_response.table import read_response_request, response_file
from torchcell.io.embeddings import read_embeddings
from torchcell.io.errors import InputError
from torchcell.io.gct import ABOUT_GENES, ABOUT_WELLS, MATRIX
from torchcell.io.gene_features import read_gene_features
from torchcell.knowledge_graph.record import KnowledgeGraph
from torchcell.knowledge_graph.table import GraphOptions, read_knowledge_graph
from torchcell.screen.table import read_screen

DRUGS, GENES = ["propranolol", "aspirin"], [f"G{i}" for i in range(6)]
FORMATS = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "csr_array": sparse.csr_array}


def wells(**columns: object) -> anndata.AnnData:
    """Eight treated and two control wells of a plate, all at 10 and 24, and these columns of ``obs``."""
    obs = pd.DataFrame({
        "perturbation": [*np.repeat(DRUGS, 4), "DMSO", "DMSO"], "cell_line": "A375", "plate": "P1",
        "dose_value": [10.0] * 8 + [0.0] * 2, "time": 24.0, "is_control": [False] * 8 + [True] * 2,
    }, index=[f"w{i}" for i in range(10)])  # fmt: skip
    X = np.random.default_rng(0).normal(8, 1, (10, 6)).astype(np.float32)
    return anndata.AnnData(X, obs=obs.assign(**columns), var=pd.DataFrame(index=GENES))


def counts(n: int = 90) -> anndata.AnnData:
    """Raw counts of cells, a third of them control cells."""
    X = np.random.default_rng(0).poisson(3, (n, 6)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": np.repeat(["ctrl", "G1", "G2"], n // 3)}, index=[f"c{i}" for i in range(n)])
    return anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=GENES))


def logs(adata: anndata.AnnData) -> np.ndarray:
    return np.log1p(adata.X / adata.X.sum(1, keepdims=True) * 1e4)


def written(adata: anndata.AnnData, folder: Path, name: str = "file.h5ad") -> Path:
    adata.write_h5ad(folder / name)
    return folder / name


def table(folder: Path, text: str) -> Path:
    (folder / "asked.csv").write_text(text)
    return folder / "asked.csv"


# Case 05: units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "dose", "time"),
    [
        ({"dose_unit": "nM"}, 0.01, 24),
        ({"dose_unit": "mM", "time_unit": "d"}, 1e4, 24 * 24),
        ({"dose_unit": ["uM", "nM", "µM", "μM", "M", "pM", "umol/L", "", "", ""]},
         [10, 0.01, 10, 10, 1e7, 1e-5, 10, 10], 24),
        ({"time_unit": ["min", "h", "hr", "d", "day", "days", "hours", "", "", ""]},
         10, [0.4, 24, 24, 576, 576, 576, 24, 24]),
        ({"dose_value": ["10 nM"] * 4 + ["10 µM", "0.01mM", "10", "10 uM", "0", ""], "time": "1 day"},
         [0.01] * 4 + [10] * 4, 24),
    ],
)  # fmt: skip
def test_units_are_read_in_files_and_in_requests(tmp_path: Path, columns: dict, dose: object, time: object) -> None:
    """nM was read as µM and a day as an hour, in silence: doses of 10 nM trained as 10 µM."""
    adata = wells(**columns)
    adata.obs.loc[adata.obs["is_control"], "dose_value"] = 0 if adata.obs["dose_value"].dtype.kind == "f" else "0"
    record = response_file(written(adata, tmp_path))
    rows = adata.obs[~adata.obs["is_control"]]
    rows.to_csv(tmp_path / "asked.csv", index=False)
    for found in (record, *(read_response_request(tmp_path / name, GENES) for name in ("file.h5ad", "asked.csv"))):
        np.testing.assert_allclose(found.dose_value, np.broadcast_to(dose, 8), rtol=1e-6)
        np.testing.assert_allclose(found.time, np.broadcast_to(time, 8), rtol=1e-6)


def test_a_unit_may_stand_in_the_name_of_the_column(tmp_path: Path) -> None:
    adata = wells()
    adata.obs = adata.obs.rename(columns={"dose_value": "dose_nM", "time": "time (d)"})
    record = response_file(written(adata, tmp_path), {"dose_value": "dose_nM", "time": "time (d)"})
    np.testing.assert_allclose(record.dose_value, 0.01)
    np.testing.assert_allclose(record.time, 24 * 24)
    assert record.notes == ()


def test_units_that_are_assumed_are_told_once(tmp_path: Path) -> None:
    record = response_file(written(wells(), tmp_path))
    assert record.notes == ("dose_value has no unit: taken as µM", "time has no unit: taken as h")
    partly = response_file(written(wells(dose_unit=["nM", "nM", *[""] * 8], time_unit="h"), tmp_path))
    assert partly.notes == ("dose_value has no unit in 6 row(s): taken as µM",)
    assert partly.fingerprint() != record.fingerprint()
    assert response_file(written(wells(dose_unit="uM"), tmp_path)).fingerprint() == record.fingerprint()


@pytest.mark.parametrize("asked", [False, True])
def test_unknown_units_are_one_error_that_names_them_all(tmp_path: Path, asked: bool) -> None:
    adata = wells(dose_unit=["%", "%", "mg/ml", "uM", "nM", "", "ng", "uM", "", ""])
    path = written(adata, tmp_path)
    told = (
        r"dose_value holds what is no number with one known unit in 4 row.s.: '.*: 10.0 %', '.*: 10.0 mg/ml', "
        r"'.*: 10.0 ng'; the units are pM, nM, µM, mM and M; convert a mass .mg/ml. or a share .%. to one of them"
    )
    with pytest.raises(InputError, match=told):
        read_response_request(path, GENES) if asked else response_file(path)
    with pytest.raises(InputError, match=r"'w0: 10 nM \(uM\)'"):
        response_file(written(wells(dose_value="10 nM", dose_unit="uM"), tmp_path))
    with pytest.raises(InputError, match="'w0: 10.0 mg'; .*time holds .*'w0: 24.0 weeks'; the units are min, h and d"):
        response_file(written(wells(dose_unit="mg", time_unit="weeks"), tmp_path))


def test_doses_beyond_100_mM_are_noted_and_the_cause_of_an_unread_dose_is_said(tmp_path: Path) -> None:
    """``dose_unit=m`` made 10 into 1e7 µM without a word."""
    assert any("above 100 mM in 8 row(s), up to 1e+07 µM" in note for note in noted(tmp_path, dose_unit="m"))
    assert not any("mM" in note for note in noted(tmp_path, dose_unit="mM"))
    with pytest.raises(InputError, match="write a decimal point, not a comma"):
        noted(tmp_path, dose_value="0,5")
    with pytest.raises(InputError, match="two units: keep one"):
        noted(tmp_path, dose_value="500 nM", dose_unit="uM")


def noted(folder: Path, **columns: object) -> tuple[str, ...]:
    return response_file(written(wells(**columns), folder)).notes


@pytest.mark.parametrize("drug", ["drug", "perturbation"])
@pytest.mark.parametrize("dose", ["dose", "dose_value"])
def test_the_same_names_are_understood_in_training_and_in_requests(tmp_path: Path, drug: str, dose: str) -> None:
    adata = wells()
    adata.obs = adata.obs.rename(columns={"perturbation": drug, "dose_value": dose})
    record = response_file(written(adata, tmp_path))
    for columns in ({}, {"drug": drug}, {"perturbation": drug}, {"dose": dose}):
        asked = read_response_request(tmp_path / "file.h5ad", GENES, columns)
        assert asked.drug.tolist() == record.drug.tolist() == np.repeat(DRUGS, 4).tolist()
        np.testing.assert_array_equal(asked.dose_value, record.dose_value)


def test_two_columns_for_one_thing_must_agree_and_missing_ones_are_named_together(tmp_path: Path) -> None:
    path = written(wells(drug="something"), tmp_path)
    for read in (response_file, lambda path, columns={}: read_response_request(path, GENES, columns)):
        with pytest.raises(InputError, match="'perturbation', 'drug', which both tell the drug and differ"):
            read(path)
        assert set(read(path, {"drug": "perturbation"}).drug) == set(DRUGS)
    adata = wells()
    adata.obs = adata.obs.drop(columns=["perturbation", "time", "plate"])
    with pytest.raises(InputError, match="lacks 3 column.s.: 'perturbation' or 'drug', 'time', 'plate'; it has"):
        response_file(written(adata, tmp_path))


# Several entries for one place ------------------------------------------------------------------------


def doubled(values: np.ndarray, kind: str) -> sparse.spmatrix:
    """The matrix with each value in two entries of one place, a row's (or column's) entries backwards."""
    csr = FORMATS[kind](values)
    first = np.floor(csr.data / 2)
    data, index = (np.stack(pair, 1).ravel() for pair in ((first, csr.data - first), (csr.indices, csr.indices)))
    order = np.argsort(-index, kind="stable")
    major = np.repeat(np.arange(len(csr.indptr) - 1), 2 * np.diff(csr.indptr))
    order = order[np.argsort(major[order], kind="stable")]
    made = FORMATS[kind]((data[order], index[order], 2 * csr.indptr), shape=values.shape)
    assert not made.has_canonical_format
    return made


def with_matrix(path: Path, key: str, matrix: sparse.spmatrix) -> Path:
    """The file with this matrix, entries as they are: anndata's own writer would do, but says so nowhere."""
    with h5py.File(path, "r+") as file:
        group = file[key]
        for name in ("data", "indices", "indptr"):
            del group[name]
            group[name] = getattr(matrix, name)
    return path


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("kind", ["csr", "csc"])
@pytest.mark.parametrize("layer", [None, "umi", "raw"])
def test_entries_of_one_place_are_summed_in_files_of_cells(
    tmp_path: Path, kind: str, layer: str | None, backed: bool
) -> None:
    """log1p(1) + log1p(1) is not log1p(2): legal files of other tools gave other expression, in silence."""
    adata, key = counts(), {None: "X", "umi": "layers/umi", "raw": "raw/X"}[layer]
    values = adata.X.copy()
    adata.X = adata.layers["umi"] = FORMATS[kind](values)
    adata.raw = adata
    plain = written(adata, tmp_path, "plain.h5ad")
    expected = cells_file(plain, "counts", "ctrl", matrix=MatrixOptions(layer=layer))
    path = with_matrix(written(adata, tmp_path), key, doubled(values, kind))
    if kind == "csc" and backed:
        with pytest.raises(InputError, match="stored by columns"):
            cells_file(path, "counts", "ctrl", matrix=MatrixOptions(layer=layer, backed=True))
        return
    found = cells_file(path, "counts", "ctrl", matrix=MatrixOptions(layer=layer, backed=backed))
    np.testing.assert_allclose(found.target, expected.target, rtol=1e-6)
    np.testing.assert_allclose(found.eval_control, expected.eval_control, rtol=1e-6)
    assert found.fingerprint() == expected.fingerprint()
    for one, other in zip(moments(found.cells.X, np.arange(90)), moments(expected.cells.X, np.arange(90)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_entries_of_one_place_are_summed_in_a_zarr_folder(tmp_path: Path) -> None:
    adata = counts()
    values, adata.X = adata.X, doubled(adata.X, "csr")
    adata.write_zarr(tmp_path / "cells.zarr")
    adata.X = values
    expected = cells_file(written(adata, tmp_path), "counts", "ctrl")
    for backed in (False, True):
        found = cells_file(tmp_path / "cells.zarr", "counts", "ctrl", matrix=MatrixOptions(backed=backed))
        np.testing.assert_allclose(found.target, expected.target, rtol=1e-6)


@pytest.mark.parametrize("kind", FORMATS)
def test_entries_of_one_place_are_summed_in_memory(kind: str) -> None:
    adata = counts()
    plain = CellExpression.from_anndata(adata, "counts", control="ctrl").validate()
    matrix = doubled(adata.X, kind)
    before = matrix.data.copy()
    adata.X = matrix
    found = CellExpression.from_anndata(adata, "counts", control="ctrl").validate()
    np.testing.assert_allclose(found.lognorm().target, plain.lognorm().target, rtol=1e-6)
    np.testing.assert_allclose(lognormalized(matrix).toarray(), lognormalized(plain.X), rtol=1e-6)
    assert found.fingerprint() == plain.fingerprint()
    np.testing.assert_array_equal(matrix.data, before)  # what the user holds stays as it was


def test_entries_that_cancel_are_not_negative_and_short_integers_do_not_overflow() -> None:
    adata = counts()
    values = adata.X.astype(np.int16)
    data = np.stack([np.full(values.size, -100, dtype=np.int8), (values + 100).ravel().astype(np.int8)], 1).ravel()
    index = np.tile(np.repeat(np.arange(6), 2), 90)
    adata.X = sparse.csr_matrix((data, index, np.arange(91) * 12), shape=values.shape)
    found = CellExpression.from_anndata(adata, "counts", control="ctrl").validate()
    np.testing.assert_array_equal(found.target, values)


@pytest.mark.parametrize("scale", ["counts", "lognorm"])
def test_entries_of_one_place_are_summed_in_requests_of_cells(tmp_path: Path, scale: str) -> None:
    adata = counts()
    values = adata.X if scale == "counts" else np.ceil(logs(adata)) + np.float32(0.5)
    asked = table(tmp_path, "perturbation\nG1\n")
    trained = Trained(GENES, GENES, np.zeros(6), scale, 1e4 if scale == "counts" else None, ())
    adata.X = sparse.csr_matrix(values)
    expected = read_cells_request(asked, Controls(written(adata, tmp_path, "plain.h5ad")), trained)
    path = with_matrix(written(adata, tmp_path), "X", doubled(values, "csr"))
    found = read_cells_request(asked, Controls(path), trained)
    np.testing.assert_allclose(found.input_control, expected.input_control, rtol=1e-6)


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_entries_of_one_place_are_summed_in_responses_and_embeddings(tmp_path: Path, kind: str) -> None:
    adata = wells()
    values = adata.X.copy()
    adata.X = adata.layers["control"] = FORMATS[kind](values)
    path = written(adata, tmp_path)
    for key in ("X", "layers/control"):
        with_matrix(path, key, doubled(values, kind))
    for found in (response_file(path).treated, response_file(path).control, read_response_request(path, GENES).control):
        np.testing.assert_allclose(found, values[:8], rtol=1e-6)
    np.testing.assert_allclose(read_embeddings(path).values, values, rtol=1e-6)


# Case 10: no X -----------------------------------------------------------------------------------------


def readers(path: Path, folder: Path) -> dict[str, Callable[[], object]]:
    asked = table(folder, "perturbation\nG1\n")
    trained = Trained(GENES, GENES, np.zeros(6), "lognorm", None, ())
    return {
        "response": lambda: response_file(path),
        "cells": lambda: cells_file(path, "lognorm", "DMSO"),
        "controls": lambda: read_cells_request(asked, Controls(path), trained),
        "embeddings": lambda: read_embeddings(path),
    }


@pytest.mark.parametrize("reader", ["response", "cells", "controls", "embeddings"])
def test_a_file_without_X_names_its_layers(tmp_path: Path, reader: str) -> None:
    """It was ``IndexError: too many indices for array``."""
    adata = wells()
    adata.layers["expr"] = adata.X
    del adata.X
    path = written(adata, tmp_path)
    with pytest.raises(
        InputError, match=r"file.h5ad holds no X; its layers are 'expr': (choose one with layer=NAME|write)"
    ):
        readers(path, tmp_path)[reader]()
    np.testing.assert_array_equal(response_file(path, layer="expr").treated, wells().X[:8])
    with pytest.raises(InputError, match="holds no layer 'exp'; its layers are 'expr'"):
        response_file(path, layer="exp")
    assert len(read_response_request(path, GENES)) == 8  # a request needs no expression


# Case 11: what a spreadsheet leaves in a plate --------------------------------------------------------

VALUES = [[8.0 + gene / 10 + well for well in range(4)] for gene in range(3)]


def plate(path: Path, cell: object, gene: int = 1, well: int = 3) -> Path:
    """Two vehicle and two treated wells of three genes as GCT, with ``cell`` at one place."""
    values: list[list[object]] = [list(row) for row in VALUES]
    values[gene][well] = cell
    about = {
        "pert_iname": ["DMSO", "DMSO", "aspirin", "imatinib"],
        "pert_type": ["ctl_vehicle"] * 2 + ["trt_cp"] * 2,
        "cell_id": ["A375"] * 4,
        "pert_dose": ["-666", "-666", "10", "500"],
        "pert_dose_unit": ["-666", "-666", "uM", "nM"],
        "pert_time": ["24"] * 4,
        "det_plate": ["P1"] * 4,
        "canonical_smiles": ["-666", "-666", "restricted", "restricted"],
    }
    lines = ["#1.3", f"3\t4\t1\t{len(about)}", "id\tpr_gene_symbol\t" + "\t".join(f"P1:A0{i}" for i in range(4))]
    lines += ["\t".join([name, "na", *cells]) for name, cells in about.items()]
    lines += ["\t".join([str(i), f"G{i}", *map(str, row)]) for i, row in enumerate(values)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("cell", ["#VALUE!", "#N/A", "N/A", "NaN", "nan", "NA", "-666", "", "#DIV/0!"])
def test_a_well_with_a_missing_cell_is_left_out_and_counted(tmp_path: Path, cell: str) -> None:
    path = plate(tmp_path / "plate.gct", cell)
    with pytest.raises(InputError, match=r"1 sample.s. with a missing value .*: 'P1:A03'; .* with drop_incomplete"):
        import_gct(path)
    adata = import_gct(path, drop_incomplete=True)
    assert adata.obs_names.tolist() == ["P1:A00", "P1:A01", "P1:A02"]
    assert adata.uns["lost"] == {"wells without a dose, time, line or value": 1}


@pytest.mark.parametrize("cell", ["inf", "1e38", "1e300", "-1e300"])
def test_a_value_that_can_not_be_held_is_named_by_well_and_gene(tmp_path: Path, cell: str) -> None:
    path = plate(tmp_path / "plate.gct", cell)
    with pytest.raises(InputError, match=r"infinite, or beyond 1e\+18: 'P1:A03 \(G1: -?(inf|1e\+38)\)'; mend it"):
        import_gct(path, drop_incomplete=True)


def test_all_cells_that_are_words_are_named_at_once(tmp_path: Path) -> None:
    path = plate(tmp_path / "plate.gct", "high")
    path.write_text(path.read_text().replace("\t10.0", "\tlow"))
    with pytest.raises(
        InputError, match="2 cell.s. that are no number: 'gene 0, well P1:A02: low', 'gene 1, well P1:A0"
    ):
        import_gct(path)


@pytest.mark.parametrize(
    ("cell", "told"), [(np.nan, "missing value"), (1e300, "value that is infinite, or beyond 1e.18")]
)
def test_a_gctx_marks_the_same(tmp_path: Path, cell: float, told: str) -> None:
    values = np.array(VALUES).T
    values[3, 1] = cell
    with h5py.File(tmp_path / "plate.gctx", "w") as file:
        file[MATRIX] = values
        file[f"{ABOUT_GENES}/id"] = [b"G0", b"G1", b"G2"]
        about = {
            "id": [f"P1:A0{i}" for i in range(4)], "pert_iname": ["DMSO", "DMSO", "aspirin", "imatinib"],
            "pert_type": ["ctl_vehicle"] * 2 + ["trt_cp"] * 2, "cell_id": ["A375"] * 4, "det_plate": ["P1"] * 4,
            "pert_dose": ["-666", "-666", "10", "500"], "pert_time": ["24"] * 4,
        }  # fmt: skip
        for name, texts in about.items():
            file[f"{ABOUT_WELLS}/{name}"] = np.array(texts, dtype="S")
    with pytest.raises(InputError, match=f"1 sample.s. with a {told}"):
        import_gct(tmp_path / "plate.gctx")


def test_an_imported_plate_tells_its_units_and_what_to_do_without_structures(tmp_path: Path) -> None:
    adata = import_gct(plate(tmp_path / "plate.gct", 1.0))
    (note, second) = adata.uns["notes"]
    assert note == "time has no unit: taken as h"
    assert second.startswith("no SMILES: the files have no column canonical_smiles or smiles")
    assert "--structures FILE" in second
    assert "--columns smiles=NAME" in second
    assert (adata.obs["smiles"] == "").all()  # 'restricted' is no structure
    record = response_file(written(adata, tmp_path))
    np.testing.assert_allclose(record.dose_value, [10, 0.5])
    assert record.notes == ()
    assert anndata.read_h5ad(tmp_path / "file.h5ad").uns["notes"].tolist() == [note, second]


# Cases 12 and 13: what the values are ------------------------------------------------------------------


@pytest.mark.parametrize("backed", [False, True])
def test_values_that_are_neither_counts_nor_logs_are_called_that(tmp_path: Path, backed: bool) -> None:
    """``lognorm`` advised ``counts``, and ``counts`` advised ``lognorm``."""
    adata = counts()
    adata.X = np.expm1(logs(adata))
    adata.X[4, 2] = 763.25
    path = written(adata, tmp_path)
    highest = f"{adata.X.max():.4g}"
    for scale in ("counts", "lognorm"):
        told = rf"neither counts nor logs \(highest {highest}, c\d+ .*take the logarithm .*scale=lognorm, or give raw"
        with pytest.raises(InputError, match=told):
            cells_file(path, scale, "ctrl", matrix=MatrixOptions(backed=backed))  # type: ignore[arg-type]


@pytest.mark.parametrize("backed", [False, True])
def test_counts_in_raw_are_named_and_can_be_read_with_their_genes(tmp_path: Path, backed: bool) -> None:
    adata = counts()
    expected = cells_file(written(adata, tmp_path, "counts.h5ad"), "counts", "ctrl")
    adata.raw = adata
    adata.layers["umi"] = adata.X.copy()
    adata.X = logs(adata)
    fewer = adata[:, 2:].copy()  # raw keeps the genes that were left out
    path = written(fewer, tmp_path)
    told = "no integers: 'c0 .*give raw counts, or declare scale=lognorm; this file holds counts too: layer=umi or layer=raw"
    with pytest.raises(InputError, match=told):
        cells_file(path, "counts", "ctrl", matrix=MatrixOptions(backed=backed))
    found = cells_file(path, "counts", "ctrl", matrix=MatrixOptions(layer="raw", backed=backed))
    assert found.genes.tolist() == GENES
    np.testing.assert_allclose(found.target, expected.target, rtol=1e-6)
    assert found.fingerprint() == expected.fingerprint()
    in_memory = CellExpression.from_anndata(fewer, "counts", control="ctrl", layer="raw").validate()
    assert in_memory.genes.tolist() == GENES
    asked = table(tmp_path, "perturbation\nG1\n")
    trained = Trained(GENES, GENES, np.zeros(6), "counts", 1e4, ())
    with pytest.raises(InputError, match="this file holds counts too: layer=umi or layer=raw"):
        read_cells_request(asked, Controls(path), trained)
    assert read_cells_request(asked, Controls(path, layer="raw"), trained).genes.tolist() == GENES
    with pytest.raises(InputError, match="holds no layer 'raw'"):
        cells_file(tmp_path / "counts.h5ad", "counts", "ctrl", matrix=MatrixOptions(layer="raw", backed=backed))


@pytest.mark.parametrize("stored", ["dense", "sparse"])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (1e38, r"values above 2.1e\+09, which no count is: 'c4 \(G2: 1e\+38\)'"),
        (1e300, r"not finite in float32: 'c4 \(G2: inf\)'|which no count is: 'c4 \(G2: 1e\+300\)'"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_count_beyond_reason_is_named_by_cell_and_gene(tmp_path: Path, stored: str, value: float, told: str) -> None:
    adata = counts()
    values = adata.X.astype(np.float64)
    values[4, 2] = value
    adata.X = values if stored == "dense" else sparse.csr_matrix(values)
    path = written(adata, tmp_path)
    for backed in (False, True):
        with pytest.raises(InputError, match=told):
            cells_file(path, "counts", "ctrl", matrix=MatrixOptions(backed=backed))
    with pytest.raises(InputError, match=told):
        CellExpression.from_anndata(adata, "counts", control="ctrl").validate()


@pytest.mark.parametrize("value", [1e38, 1e300])
@pytest.mark.filterwarnings("error")
def test_expression_beyond_reason_is_named_by_well_and_gene(tmp_path: Path, value: float) -> None:
    adata = wells()
    adata.X = adata.X.astype(np.float64)
    adata.X[3, 2] = value
    with pytest.raises(
        InputError, match=r"treated expression that is not finite, or beyond 1e\+18: 'w3 \(G2: (1e|inf)"
    ):
        response_file(written(adata, tmp_path))


# Repeated rows of a knowledge graph --------------------------------------------------------------------

NODES = "id,name,type\nd1,one,Drug\ng1,a,Gene\ng2,b,Gene\ng3,c,Gene\n"
EDGES = "source,edge_type,target,licence\nd1,binds,g1,CC0\ng1,meets,g2,CC0\ng1,moves,g2,CC0\nd1,binds,g3,CC0\n"


def graph_of(folder: Path, nodes: str = "", edges: str = "", **options: object) -> KnowledgeGraph:
    (folder / "nodes.csv").write_text(NODES + nodes)
    (folder / "edges.csv").write_text(EDGES + edges)
    return read_knowledge_graph(
        folder / "nodes.csv", folder / "edges.csv", options=GraphOptions(directed=["moves"], **options)
    )  # type: ignore[arg-type]


def test_repeated_rows_of_a_knowledge_graph_are_refused_or_dropped_and_counted(tmp_path: Path) -> None:
    plain = graph_of(tmp_path)
    nodes = "g1,a,Gene\nd1,one,Drug\n"
    edges = "d1,binds,g1,CC0\nd1,binds,g1,CC0\ng2,meets,g1,CC0\ng2,moves,g1,CC0\n"
    with pytest.raises(InputError, match="node ids used twice: 'd1', 'g1'; .*data.record.graph.drop_duplicates=true"):
        graph_of(tmp_path, nodes)
    with pytest.raises(
        InputError, match="3 sample.s. with an edge that an earlier row has .*data.record.graph.drop_duplicates"
    ):
        graph_of(tmp_path, edges=edges)
    found = graph_of(tmp_path, nodes, edges, drop_duplicates=True)
    assert found.dropped == {"repeated nodes": 2, "repeated edges": 3}
    assert found.sample_id.tolist() == [*plain.sample_id.tolist(), "g2|moves|g1"]  # of a directed one both directions
    assert found.node_id.tolist() == plain.node_id.tolist()
    assert graph_of(tmp_path, drop_duplicates=True).fingerprint() == plain.fingerprint()


@pytest.mark.parametrize(
    ("nodes", "edges", "told"),
    [
        ("g1,another,Gene\n", "", "node ids used twice: 'g1'"),
        ("g1,a,Drug\n", "", "node ids used twice: 'g1'"),
        ("", "d1,binds,g1,CC BY\n", "an edge that an earlier row has too"),
        ("", "g1,binds,d1,CC0\n", "edge type 'binds' joins Drug-Gene and Gene-Drug"),
        ("", "d1,binds,g8,CC0\ng9,binds,d1,CC0\n", "outside the node table"),
    ],
)
def test_what_is_not_the_same_throughout_is_never_dropped(tmp_path: Path, nodes: str, edges: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        graph_of(tmp_path, nodes, edges, drop_duplicates=True)


# 1e38 fits into float32, and its square does not -------------------------------------------------------


@pytest.mark.parametrize("value", ["1e38", "1e300"])
@pytest.mark.parametrize("what", ["screen", "features", "embeddings", "molecules"])
def test_numbers_beyond_reason_are_named_by_their_row(tmp_path: Path, what: str, value: str) -> None:
    """They trained to nan, or were refused as nan somewhere on the way."""
    heads = {"screen": "sample_id,genes,fitness", "features": "gene,one,two"}
    rows = {"screen": "s{0},A{0}|B{0},{1}"}
    lines = [rows.get(what, "G{0},1,{1}").format(i, value if i == 3 else i + 1) for i in range(6)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join([heads.get(what, "id,one,two"), *lines]) + "\n")
    response = response_file(written(wells(perturbation=[f"G{i}" for i in range(8)] * 1 + ["DMSO"] * 2), tmp_path))
    readers = {
        "screen": lambda: read_screen(path).validate(),
        "features": lambda: read_gene_features(path),
        "embeddings": lambda: read_embeddings(path).validate(path),
        "molecules": lambda: MoleculeTable(str(path), key="id")(response),
    }
    with pytest.raises(InputError, match=r"1e\+18.*'row 5: 1e\+"):
        readers[what]()
