"""A plate becomes AnnData under our names; what can't be matched or read is refused by the wells' names."""

from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest

from tests.drug_response.small_plate import ABOUT, VALUES, WELLS, gct, written
from torchcell.data import main
from torchcell.drug_response.import_gct import import_gct
from torchcell.drug_response.table import response_file
from torchcell.io.errors import InputError
from torchcell.io.gct import ABOUT_GENES, ABOUT_WELLS, MATRIX, Gctx, read_gct
from torchcell.io.sources import fetch


def test_units_names_and_controls_are_ours(tmp_path: Path) -> None:
    adata = import_gct(written(tmp_path, gct()))
    assert adata.obs["perturbation"].tolist() == ABOUT["pert_iname"]
    np.testing.assert_allclose(adata.obs["dose_value"], [0, 10, 0.5, 0, 0, 1])
    assert (adata.obs["time"] == 24).all()
    assert adata.obs["is_control"].tolist() == [True, False, False, True, True, False]
    assert {"pert_id", "smiles", "inchikey", "cell_line", "plate"} <= set(adata.obs)
    assert adata.var_names.tolist() == ["TP53", "MYC", "EGFR", "JUN"]
    control, values = adata.layers["control"], np.array(VALUES).T
    np.testing.assert_array_equal(control[:3], np.tile(values[0], (3, 1)))
    np.testing.assert_array_equal(control[3:], np.tile(values[3:5].mean(0), (3, 1)))


def test_columns_have_other_names_by_the_map(tmp_path: Path) -> None:
    text = gct().replace("det_plate", "my_plate").replace("pert_dose\t", "conc\t").replace("pr_gene_symbol", "label")
    path = written(tmp_path, text)
    with pytest.raises(InputError, match="to tell the dose_value; say columns dose_value=NAME"):
        import_gct(path)
    adata = import_gct(path, {"plate": "my_plate", "dose_value": "conc", "gene": "label"})
    assert adata.obs["plate"].tolist() == ABOUT["det_plate"]
    with pytest.raises(InputError, match="no column 'my_plat'; the nearest are .'my_plate'"):
        import_gct(path, {"plate": "my_plat", "dose_value": "conc"})
    with pytest.raises(InputError, match="no internal column 'dose'; the nearest are .'dose_"):
        import_gct(path, {"dose": "conc"})


@pytest.mark.parametrize(
    ("about", "arguments", "message"),
    [
        (
            {"det_plate": ["P1"] * 3 + ["P3", "P3", "P2"]},
            {},
            r"1 plate\(s\) without control wells: 'P2'; for the vehicle give its name to --control",
        ),
        ({"pert_type": ["trt_cp"] * 6}, {}, "no control wells: no kind and no perturbation is 'ctl_vehicle'"),
        ({}, {"control": "DMS"}, "nearest perturbations: .'DMSO'"),
        ({"pert_dose": ["-666", "10", "-666", "-666", "-666", "1"]}, {}, r"1 sample\(s\) with no dose: 'P1:A03'"),
        ({"pert_dose": ["-666", "10", "-5", "-666", "-666", "1"]}, {}, "with a negative dose: 'P1:A03'"),
        ({"pert_dose": ["-666", "10", "high", "-666", "-666", "1"]}, {}, "whose dose can't be read: 'P1:A03: high nM'"),
        (
            {"pert_dose_unit": ["-666", "um", "%", "-666", "-666", "um"]},
            {},
            "whose dose can't be read: 'P1:A03: 500 %'",
        ),
        ({"pert_time": ["24"] * 5 + ["6 h & 4 h"]}, {}, "whose time can't be read: 'P2:A03: 6 h & 4 h'"),
        ({"cell_id": ["A375"] * 5 + ["-666"]}, {}, "with no cell line: 'P2:A03'"),
        ({}, {"match": "nearest"}, "no way to match controls called 'nearest'"),
    ],
)
def test_what_can_not_be_matched_or_read_is_named(tmp_path: Path, about: dict, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_gct(written(tmp_path, gct(about)), **arguments)


def test_incomplete_wells_are_refused_or_left_out_and_counted(tmp_path: Path) -> None:
    values: list[list[object]] = [list(row) for row in VALUES]
    values[1][5] = -666
    path = written(tmp_path, gct({"pert_dose": ["-666", "10", "-666", "-666", "-666", "1"]}, values))
    with pytest.raises(InputError, match="no dose"):
        import_gct(path)
    adata = import_gct(path, drop_incomplete=True)
    assert adata.obs_names.tolist() == ["P1:A01", "P1:A02", "P2:A01", "P2:A02"]
    assert adata.uns["lost"] == {"wells without a dose, time, line or value": 2}
    whole = written(tmp_path, gct(values=values), "one.gct")
    with pytest.raises(InputError, match=r"a missing value \(-666, NA, .*\): 'P2:A03'"):
        import_gct(whole)


def test_input_controls_than_the_vehicle_are_no_treatment(tmp_path: Path) -> None:
    kinds = ["ctl_vehicle", "trt_cp", "ctl_untrt", "ctl_vehicle", "ctl_vehicle", "trt_cp"]
    adata = import_gct(written(tmp_path, gct({"pert_type": kinds})))
    assert "P1:A03" not in adata.obs_names
    assert adata.uns["lost"] == {"wells of other controls": 1}


def test_genes_with_one_symbol_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="genes used twice: 'MYC'"):
        import_gct(written(tmp_path, gct(symbols=["TP53", "MYC", "MYC", "JUN"])))


def test_the_command_writes_what_data_response_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = written(tmp_path, gct()), tmp_path / "plate.h5ad"
    assert main(["import-gct", str(path), str(out), "--match", "paired", "--columns", "plate=det_plate"]) == 0
    told = capsys.readouterr().out
    assert "6 wells x 4 genes, 3 of them controls, on 2 plate(s)" in told
    assert told.splitlines()[-1] == str(out)
    record = response_file(out)
    assert record.sample_id.tolist() == ["P1:A02", "P1:A03", "P2:A03"]
    np.testing.assert_array_equal(record.treated, np.array(VALUES).T[[1, 2, 5]])
    assert main(["import-gct", str(path), str(tmp_path / "plate.csv")]) == 1
    assert "must end in .h5ad" in capsys.readouterr().err
    assert main(["import-gct", str(path), str(out), "--columns", "plate"]) == 1
    assert "INTERNAL=NAME" in capsys.readouterr().err
    assert main(["import-gct", str(tmp_path / "plate.txt"), str(out)]) == 1
    assert "must be a .gct" in capsys.readouterr().err


def test_structures_come_from_a_table_by_compound(tmp_path: Path) -> None:
    path, table = written(tmp_path, gct()), tmp_path / "known.csv"
    table.write_text("pert_id,smiles,InChIKey\nBRD-1,CCO,LFQSCWFLJHTTHZ-UHFFFAOYSA-N\nBRD-1,CCC,\nBRD-9,C,\n")
    adata = import_gct(path, structures=table)
    assert adata.obs["smiles"].tolist() == ["", "CCO", "", "", "", "CCO"]
    assert adata.obs["inchikey"].iloc[5] == "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"
    table.write_text("pert_id,smiles\nBRD-9,C\n")
    with pytest.raises(InputError, match="knows none of the compounds, e.g. 'BRD-1', 'BRD-2', 'DMSO'; .* 'BRD-9'"):
        import_gct(path, structures=table)
    table.write_text("name,smiles\nBRD-9,C\n")
    with pytest.raises(InputError, match="has no column 'pert_id'; it has 'name', 'smiles'"):
        import_gct(path, structures=table)


def as_gctx(folder: Path, path: Path) -> Path:
    """The same plate as a GCTX file."""
    table = read_gct(path)
    with h5py.File(folder / "plate.gctx", "w") as file:
        file[MATRIX] = np.nan_to_num(table.values, nan=-666)
        for group, about in ((ABOUT_WELLS, table.wells), (ABOUT_GENES, table.genes)):
            file[f"{group}/id"] = about.index.to_numpy().astype("S")
            for name in about:
                file[f"{group}/{name}"] = np.array([cell.encode() for cell in about[name]])
    return folder / "plate.gctx"


def second(folder: Path, old: str = "P", new: str = "Q", **changes) -> Path:
    """A further file of two plates: Q1 and Q2."""
    about = {"det_plate": [name.replace(old, new) for name in ABOUT["det_plate"]]} | changes.pop("about", {})
    wells = [name.replace(old, new) for name in WELLS]
    return written(folder, gct(about, wells=wells, **changes), "second.gct")


def test_several_files_make_one_with_genes_by_name_and_controls_of_each_plate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """record.path is one file: two plates could be trained on together only after a join of one's own."""
    higher = [[value + 100 for value in row] for row in VALUES]
    paths = [written(tmp_path, gct()), second(tmp_path, values=higher, symbols=["JUN", "TP53", "EGFR", "KRAS"])]
    assert main(["import-gct", *map(str, paths), str(tmp_path / "both.h5ad"), "--drop-incomplete"]) == 0
    told = capsys.readouterr().out
    assert "12 wells x 3 genes, 6 of them controls, on 4 plate(s)" in told
    assert "left out: 2 genes that only some of the files measure" in told
    both, alone = anndata.read_h5ad(tmp_path / "both.h5ad"), [import_gct(path) for path in paths]
    assert both.var_names.tolist() == ["TP53", "EGFR", "JUN"]
    assert both.var["gene_id"].tolist() == ["100", "102", "103"]
    assert both.uns["source"] == "plate.gct, second.gct"
    for one in alone:
        part = both[one.obs_names]
        np.testing.assert_array_equal(part.X, one[:, both.var_names].X)
        np.testing.assert_array_equal(part.layers["control"], one[:, both.var_names].layers["control"])
        assert part.obs.astype(str).equals(one.obs.astype(str))
    assert len(response_file(tmp_path / "both.h5ad")) == 6


def test_files_that_can_not_be_joined_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, gct())
    with pytest.raises(
        InputError, match=r"6 well.s. that stand in several files: 'P1:A01 in .*plate.gct and .*plate.gct'"
    ):
        import_gct([path, path])
    with pytest.raises(
        InputError, match="plate.gct', '.*second.gct' share no gene; the first has 'TP53', 'MYC', 'EGFR'"
    ):
        import_gct([path, second(tmp_path, symbols=["a", "b", "c", "d"])])
    bare = second(tmp_path, about={"pert_type": ["ctl_vehicle", *["trt_cp"] * 5], "pert_dose": ["1"] * 6})
    with pytest.raises(InputError, match=r"1 plate\(s\) without control wells: 'Q2'"):
        import_gct([path, bare])


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64])
def test_numbers_of_a_gctx_keep_all_their_digits(tmp_path: Path, kind: type) -> None:
    """A column of ids with one -666 is read as floats: 11667893 and 11667894 both became 1.16679e+07, one drug."""
    path = as_gctx(tmp_path, written(tmp_path, gct()))
    with h5py.File(path, "r+") as file:
        del file[f"{ABOUT_WELLS}/pert_iname"], file[f"{ABOUT_WELLS}/pert_time"]
        file[f"{ABOUT_WELLS}/pert_iname"] = np.array([1, 11667893, 11667894, 1, 1, 11667893], dtype=kind)
        file[f"{ABOUT_WELLS}/cmap_name"] = np.array([-666, 11667893, 11667894, 5, 5, 5], dtype=kind)
        file[f"{ABOUT_WELLS}/pert_time"] = np.array([24.1] * 6, dtype=np.float32)
    obs = import_gct(path).obs
    assert obs["perturbation"].tolist() == ["1", "11667893", "11667894", "1", "1", "11667893"]
    np.testing.assert_allclose(obs["time"], 24.1, rtol=1e-6)
    renamed = import_gct(path, {"pert_id": "cmap_name"}).obs
    assert renamed["pert_id"].tolist() == ["", "11667893", "11667894", "5", "5", "5"]


@pytest.mark.parametrize("chunk", [1, 4096])
def test_of_a_gctx_only_the_wells_that_are_kept_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """The whole matrix used to be read, then copied: 12 GB twice for the million wells of a release."""
    monkeypatch.setattr("torchcell.drug_response.import_gct.CHUNK", chunk)
    values: list[list[object]] = [list(row) for row in VALUES]
    values[1][2] = -666
    about = {"pert_dose": ["-666", "10", "500", "-666", "-666", "-666"]}
    about["pert_type"] = ["ctl_vehicle", "trt_cp", "trt_cp", "ctl_untrt", "ctl_vehicle", "trt_cp"]
    path = written(tmp_path, gct(about, values))
    asked: list[list[int]] = []
    whole = Gctx.read
    monkeypatch.setattr(Gctx, "read", lambda file, at: asked.append(at.tolist()) or whole(file, at))
    adata, text = (import_gct(one, drop_incomplete=True) for one in (as_gctx(tmp_path, path), path))
    assert asked == [[0, 1, 2, 4]]
    assert adata.obs_names.tolist() == text.obs_names.tolist() == ["P1:A01", "P1:A02", "P2:A02"]
    assert adata.uns["lost"] == text.uns["lost"]
    assert adata.uns["lost"] == {"wells of other controls": 1, "wells without a dose, time, line or value": 2}
    np.testing.assert_array_equal(adata.X, np.array(VALUES).T[[0, 1, 4]])
    np.testing.assert_array_equal(adata.X, text.X)
    np.testing.assert_array_equal(adata.layers["control"], text.layers["control"])
    asked.clear()
    with pytest.raises(InputError, match="no dose: 'P2:A03'"):
        import_gct(tmp_path / "plate.gctx")
    assert not asked, "what the annotations tell is refused before the matrix is read"


@pytest.mark.mirror
def test_the_repurposing_hub_tells_two_thirds_of_a_real_plate(mirror: Path) -> None:
    (hub,) = fetch("repurposing_samples").values()
    path = next(path for name, path in fetch("l1000_plates").items() if name.startswith("LJP005"))
    obs = import_gct(path, structures=hub).obs
    treated = obs[~obs["is_control"]]
    assert (treated["smiles"] != "").sum() == 238
    assert len(treated) == 351


@pytest.mark.mirror
def test_the_real_plates_get_the_controls_of_the_level_3_set(mirror: Path) -> None:
    """Ours against those that the authors of the merged set computed, well by well."""
    (level3,) = fetch("l1000_level3").values()
    merged = anndata.read_h5ad(level3)
    for path in fetch("l1000_plates").values():
        plate = import_gct(path)
        source = path.name[:6]
        assert plate.shape == ((377, 978) if source == "LJP005" else (371, 978))
        assert plate.obs["is_control"].sum() == (26 if source == "LJP005" else 22)
        treated = plate[~plate.obs["is_control"]]
        theirs = merged[[f"{source}:{name}" for name in treated.obs_names]]
        genes = treated.var_names[treated.var_names.isin(theirs.var_names)]
        assert len(genes) == 943  # 35 symbols were renamed since
        np.testing.assert_array_equal(treated[:, genes].X, theirs[:, genes].X)
        np.testing.assert_allclose(treated[:, genes].layers["control"], theirs[:, genes].layers["control"], atol=1e-5)
        np.testing.assert_allclose(treated.obs["dose_value"], theirs.obs["dose_um"])


@pytest.mark.mirror
def test_the_two_real_plates_become_one_file_of_both(mirror: Path) -> None:
    paths = list(fetch("l1000_plates").values())
    both = import_gct(paths)
    assert both.shape == (377 + 371, 978)
    assert both.obs.groupby("plate")["is_control"].sum().tolist() == [26, 22]
    for path in paths:
        alone = import_gct(path)
        np.testing.assert_array_equal(both[alone.obs_names].X, alone.X)
        np.testing.assert_array_equal(both[alone.obs_names].layers["control"], alone.layers["control"])


@pytest.mark.mirror
def test_the_real_signatures_need_no_control_wells(mirror: Path) -> None:
    (path,) = fetch("l1000_gctx").values()
    with pytest.raises(InputError, match="match=signatures where the values are changes already"):
        import_gct(path)
    with pytest.raises(InputError, match="6 h & 4 h"):
        import_gct(path, match="signatures")
    adata = import_gct(path, match="signatures", drop_incomplete=True)
    assert adata.shape == (270, 978)
    assert set(adata.obs["dose_value"].round(6)) == {10.0, 3.0, 1.0, 0.5, 0.1}
    assert not adata.layers["control"].any()
