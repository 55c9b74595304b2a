from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchcell.drug_response.record import Response
from torchcell.drug_response.simulate import simulate_response
from torchcell.io.errors import InputError

LEVEL3 = "l1000/l1000_level3_treated_control.h5ad"


@pytest.fixture(scope="module")
def response() -> Response:
    return simulate_response(n_drugs=8, n_lines=3, n_genes=30, coverage=1).response


def changed(values: np.ndarray, at: object, value: object) -> np.ndarray:
    values = values.copy()
    values[at] = value
    return values


@pytest.mark.parametrize(
    ("part", "at", "value", "what"),
    [
        ("treated", (2, 5), np.nan, "treated expression that is not finite"),
        ("control", (2, 0), np.inf, "control expression that is not finite"),
        ("dose_value", 2, -666.0, "a negative dose"),
        ("dose_value", 2, np.nan, "no dose"),
        ("time", 2, np.nan, "no time"),
        ("drug", 2, "", "no drug"),
        ("cell_line", 2, "", "no cell_line"),
    ],
)
def test_a_bad_value_is_refused_and_its_sample_named(
    response: Response, part: str, at: object, value: object, what: str
) -> None:
    bad = replace(response, **{part: changed(getattr(response, part), at, value)})
    with pytest.raises(InputError, match=what) as caught:
        bad.validate()
    assert "1 sample(s)" in str(caught.value)
    assert str(response.sample_id[2]) in str(caught.value)


def test_repeated_names_and_wrong_shapes_are_refused(response: Response) -> None:
    ids = changed(response.sample_id, 1, response.sample_id[0])
    with pytest.raises(InputError, match="sample ids used twice"):
        replace(response, sample_id=ids).validate()
    with pytest.raises(InputError, match=r"genes used twice: .G0001"):
        replace(response, genes=changed(response.genes, 3, "G0001")).validate()
    with pytest.raises(InputError, match=r"control has shape \(144, 29\), expected \(144, 30\)"):
        replace(response, control=response.control[:, 1:]).validate()
    with pytest.raises(InputError, match="smiles has shape"):
        replace(response, smiles=response.smiles[1:]).validate()  # type: ignore[index]


def test_subset_takes_rows_in_the_given_order_and_keeps_the_genes(response: Response) -> None:
    index = np.array([7, 3, 100])
    part = response.subset(index).validate()
    assert part.sample_id.tolist() == response.sample_id[index].tolist()
    np.testing.assert_array_equal(part.target, response.treated[index])
    np.testing.assert_array_equal(part.control, response.control[index])
    assert part.smiles is not None
    assert response.smiles is not None
    assert part.smiles.tolist() == response.smiles[index].tolist()
    assert part.phenotype_names == tuple(response.genes)
    mask = response.cell_line == "A549"
    assert set(response.subset(mask).cell_line) == {"A549"}
    assert len(response.subset(mask)) == mask.sum()


@pytest.mark.parametrize("with_smiles", [True, False])
def test_h5ad_round_trip_keeps_every_value(response: Response, tmp_path: Path, with_smiles: bool) -> None:
    import anndata

    response = replace(response, smiles=response.smiles if with_smiles else None)
    response = replace(response, basal=None if with_smiles else response.control + 1)
    response.to_anndata().write_h5ad(tmp_path / "response.h5ad")
    read = anndata.read_h5ad(tmp_path / "response.h5ad")
    back = Response.from_anndata(read, name=response.name, keep=list(response.columns)).validate()
    for name, value in vars(response).items():
        if name != "columns":
            np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)
    for name, value in response.columns.items():
        np.testing.assert_array_equal(back.columns[name], value, err_msg=name)


def test_the_column_map_renames_and_a_missing_column_is_named_with_its_neighbors(response: Response) -> None:
    adata = response.to_anndata()
    adata.obs = adata.obs.rename(columns={"dose_value": "dose_um"})
    back = Response.from_anndata(adata, {"dose_value": "dose_um"})
    np.testing.assert_array_equal(back.dose_value, response.dose_value)
    with pytest.raises(InputError, match=r"lacks 1 column.s.: 'dose_value' or 'dose'; .*the nearest are .'dose_um'"):
        Response.from_anndata(adata)
    with pytest.raises(InputError, match=r"no internal column 'doses'; the nearest are .'dose'"):
        Response.from_anndata(adata, {"doses": "dose_um"})
    with pytest.raises(InputError, match="no layer 'vehicle'"):
        Response.from_anndata(adata, {"dose_value": "dose_um"}, control_layer="vehicle")


def test_samples_are_chosen_by_line_and_genes_by_name(response: Response) -> None:
    assert set(response.on_lines("A549").cell_line) == {"A549"}
    assert response.on_lines(None) is response
    with pytest.raises(InputError, match="no cell line 'a549'; the lines are A375, A549, BT20"):
        response.on_lines(["A375", "a549"])
    backwards = response.on_genes(response.genes[::-1]).validate()
    np.testing.assert_array_equal(backwards.treated, response.treated[:, ::-1])
    np.testing.assert_array_equal(backwards.control, response.control[:, ::-1])
    with pytest.raises(InputError, match=r"1 of 2 genes are not measured: 'G0031'"):
        response.on_genes(["G0001", "G0031"])


def test_doses_and_times_that_are_texts_are_read_by_their_unit_or_named(response: Response) -> None:
    adata = response.subset(np.arange(4)).to_anndata()
    adata.obs = adata.obs.drop(columns=["dose_unit", "time_unit"])
    adata.obs["dose_value"] = pd.Categorical(["500 nM", "10 µM", "3", "1 mM"])
    adata.obs["time"] = pd.array([24, 6, None, 24], dtype="Int64")
    back = Response.from_anndata(adata)
    np.testing.assert_allclose(back.dose_value, [0.5, 10, 3, 1000])
    assert back.notes == ("dose_value has no unit in 1 row(s): taken as µM", "time has no unit: taken as h")
    np.testing.assert_array_equal(back.time, np.array([24, 6, np.nan, 24], dtype=np.float32))
    with pytest.raises(InputError, match=f"no time in h: '{back.sample_id[2]}'"):
        back.validate()
    adata.obs["dose_value"] = ["500 nM", "much", "NA", "3 %"]
    first, last = (f"{adata.obs_names[i]}: {text}" for i, text in ((1, "much"), (3, "3 %")))
    with pytest.raises(InputError, match=f"dose_value holds what is no number .*: '{first}', '{last}'; the units are"):
        Response.from_anndata(adata)


@pytest.mark.mirror
def test_the_level_3_set_reads_with_a_column_map_and_its_unknown_doses_are_named(mirror: Path) -> None:
    import anndata

    columns = {
        "perturbation": "pert_iname", "cell_line": "cell_id", "dose_value": "dose_um", "time": "time_h",
    }  # fmt: skip
    record = Response.from_anndata(anndata.read_h5ad(mirror / LEVEL3), columns)
    assert record.treated.shape == (1461, 978)
    assert record.smiles is not None
    assert (record.smiles != "").sum() == 1455
    assert len(np.unique(record.smiles[record.smiles != ""])) == 471
    lines, counts = np.unique(record.cell_line, return_counts=True)
    assert dict(zip(lines, counts, strict=True))["A375"] == 705
    assert len(np.unique(record.plate)) == 104
    with pytest.raises(InputError, match=r"100 sample\(s\) with no dose in µM: 'TranSiGen:0'"):
        record.validate()
    assert len(record.subset(np.isfinite(record.dose_value)).validate()) == 1361
