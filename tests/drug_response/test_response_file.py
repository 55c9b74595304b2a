"""A user's own h5ad: matched controls, or control wells that are matched here."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse

from torchcell.drug_response.simulate import simulate_response
from torchcell.drug_response.table import response_file
from torchcell.io.errors import InputError


@pytest.fixture
def wells() -> anndata.AnnData:
    """Treated wells of two plates with the wells of their vehicle, and no layer of controls."""
    record = simulate_response(n_drugs=4, n_lines=1, n_genes=10, coverage=1).response
    adata = record.to_anndata()
    rng = np.random.default_rng(0)
    vehicles = adata[:12].copy()
    vehicles.X = rng.normal(8, 1, vehicles.shape).astype(np.float32)
    vehicles.obs["plate"] = ["A375_P1", "A375_P2"] * 6
    vehicles.obs_names = [f"vehicle{i}" for i in range(12)]
    whole = anndata.concat([adata, vehicles])
    whole.obs["is_control"] = [False] * len(adata) + [True] * 12
    del whole.layers["control"]
    return whole


@pytest.mark.parametrize("stored", ["dense", "sparse"])
def test_control_wells_are_matched_and_are_no_samples(wells: anndata.AnnData, tmp_path: Path, stored: str) -> None:
    expected = {
        plate: wells[(wells.obs["plate"] == plate) & wells.obs["is_control"]].X.mean(0)
        for plate in ("A375_P1", "A375_P2")
    }
    if stored == "sparse":
        wells.X = sparse.csr_matrix(wells.X)
    wells.write_h5ad(tmp_path / "wells.h5ad")
    record = response_file(tmp_path / "wells.h5ad", name="mine", keep=["targets"])
    assert record.name == "mine"
    assert len(record) == 24
    assert set(record.columns["targets"]) == {"T01"}
    for plate, mean in expected.items():
        own = record.control[record.plate == plate]
        np.testing.assert_allclose(own, np.broadcast_to(mean, own.shape), rtol=1e-5)


def test_a_layer_of_controls_is_taken_as_it_is(tmp_path: Path) -> None:
    record = simulate_response(n_drugs=4, n_lines=2, n_genes=10, coverage=1).response
    adata = record.to_anndata()
    adata.obs = adata.obs.rename(columns={"cell_line": "line", "dose_value": "um"})
    adata.write_h5ad(tmp_path / "own.h5ad")
    columns = {"cell_line": "line", "dose_value": "um"}
    back = response_file(tmp_path / "own.h5ad", columns)
    np.testing.assert_array_equal(back.control, record.control)
    np.testing.assert_array_equal(back.dose_value, record.dose_value)
    one = response_file(tmp_path / "own.h5ad", columns, cell_lines="A549")
    assert set(one.cell_line) == {"A549"}
    with pytest.raises(InputError, match="no cell line 'HELA'; the lines are A375, A549"):
        response_file(tmp_path / "own.h5ad", columns, cell_lines="HELA")


def test_what_the_file_lacks_is_named(wells: anndata.AnnData, tmp_path: Path) -> None:
    path = tmp_path / "wells.h5ad"
    bare = wells[~((wells.obs["plate"] == "A375_P2") & wells.obs["is_control"])].copy()
    bare.write_h5ad(path)
    with pytest.raises(
        InputError, match=r"without control wells: 'A375_P2'; for the vehicle flag its wells in obs\['is_c"
    ):
        response_file(path)
    wells.obs["is_control"] = wells.obs["is_control"].map({True: "yes", False: "no"})
    wells.write_h5ad(path)
    with pytest.raises(InputError, match="is_control holds .*; it must be true or false"):
        response_file(path)
    with pytest.raises(InputError, match="no column 'vehicle'"):
        response_file(path, {"is_control": "vehicle"})
    wells.obs = wells.obs.drop(columns="is_control")
    wells.write_h5ad(path)
    with pytest.raises(InputError, match="tells no controls: it has neither a layer 'control'"):
        response_file(path)
    with pytest.raises(InputError, match="no such file"):
        response_file(tmp_path / "nowhere.h5ad")
    path.write_text("text")
    with pytest.raises(InputError, match="can't be read as HDF5"):
        response_file(path)


@pytest.mark.parametrize(("value", "message"), [(-1.0, "a negative dose in µM"), (np.nan, "no dose in µM")])
def test_a_bad_dose_is_refused_by_the_name_of_its_sample(tmp_path: Path, value: float, message: str) -> None:
    adata = simulate_response(n_drugs=4, n_lines=1, n_genes=10, coverage=1).response.to_anndata()
    adata.obs.iloc[3, adata.obs.columns.get_loc("dose_value")] = value
    adata.write_h5ad(tmp_path / "own.h5ad")
    with pytest.raises(InputError, match=message) as caught:
        response_file(tmp_path / "own.h5ad")
    assert adata.obs_names[3] in str(caught.value)
