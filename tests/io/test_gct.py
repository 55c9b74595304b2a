"""GCT 1.3: real plates with their known sizes, marks of missing values, and headers that lie."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.drug_response.small_plate import SYMBOLS, VALUES, WELLS, gct, written
from torchcell.io.errors import InputError
from torchcell.io.gct import read_gct
from torchcell.io.sources import fetch


@pytest.mark.mirror
def test_the_real_plates_have_their_known_wells(mirror: Path) -> None:
    files = fetch("l1000_plates")
    for name, n_wells, n_vehicle in (("LJP005", 377, 26), ("LJP009", 371, 22)):
        (path,) = (path for file, path in files.items() if file.startswith(name))
        plate = read_gct(path)
        assert plate.values.shape == (n_wells, 978)
        assert np.isfinite(plate.values).all()
        assert (plate.wells["pert_iname"] == "DMSO").sum() == n_vehicle
        assert plate.genes["pr_gene_symbol"].nunique() == 978
        assert (plate.wells.loc[plate.wells["pert_iname"] == "DMSO", "pert_dose"] == "").all()


def test_wells_are_rows_and_annotations_stand_beside_them(tmp_path: Path) -> None:
    plate = read_gct(written(tmp_path, gct()))
    np.testing.assert_array_equal(plate.values, np.array(VALUES).T)
    assert plate.wells.index.tolist() == WELLS
    assert plate.wells["pert_dose"].tolist() == ["", "10", "500", "", "", "1"]
    assert plate.genes["pr_gene_symbol"].tolist() == SYMBOLS
    assert plate.genes.index.tolist() == ["0_at", "1_at", "2_at", "3_at"]


def test_packed_windows_and_latin_files_read_the_same(tmp_path: Path) -> None:
    expected = read_gct(written(tmp_path, gct()))
    (tmp_path / "packed.gct.gz").write_bytes(gzip.compress(gct().encode()))
    (tmp_path / "windows.gct").write_bytes(gct().replace("\n", "\r\n").encode("latin-1"))
    for name in ("packed.gct.gz", "windows.gct"):
        plate = read_gct(tmp_path / name)
        np.testing.assert_array_equal(plate.values, expected.values)
        assert plate.wells.equals(expected.wells)


@pytest.mark.parametrize("mark", ["-666", "-666.0", "NA", "nan", ""])
def test_a_mark_of_a_missing_value_is_nan(tmp_path: Path, mark: str) -> None:
    values: list[list[object]] = [list(row) for row in VALUES]
    values[2][4] = mark
    plate = read_gct(written(tmp_path, gct(values=values)))
    assert np.argwhere(np.isnan(plate.values)).tolist() == [[4, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#1.2\n", r"first line is '#1.2', expected '#1.3'"),
        ("", r"first line is ''"),
        (gct(counts="5\t6\t2\t8"), "promises 5 genes and 8 annotations of wells, so 16 lines; the file has 15"),
        (gct(counts="4\t7\t2\t8"), "annotations of genes and 7 wells, so 10 cells a line; .*'line 3: 9'"),
        (gct(counts="4\t6\t2"), "four counts"),
        (gct(counts="0\t6\t2\t8"), "promises 0 genes"),
        (gct(counts="-4\t6\t2\t8"), "four counts"),
        (gct() + "more\t1\n", "the file has 16"),
        (gct().replace("2_at\t102\t", "2_at\t"), "other numbers of cells stand in 'line 14: 8'"),
        (gct(wells=["P1:A01", *WELLS[:5]]), "ids of wells used twice: 'P1:A01'"),
        (gct().replace("\n3_at", "\n2_at"), "ids of genes used twice: '2_at'"),
        (
            gct(values=[*VALUES[:3], ["high", 1, 2, 3, 4, 5]]),
            "1 cell.s. that are no number: 'gene 3_at, well P1:A01: high'",
        ),
    ],
)
def test_a_file_that_breaks_its_header_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_gct(written(tmp_path, text))


def test_no_file_and_half_an_archive_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_gct(tmp_path / "nowhere.gct")
    (tmp_path / "half.gct.gz").write_bytes(gzip.compress(gct().encode())[:40])
    with pytest.raises(InputError, match="can't be decompressed"):
        read_gct(tmp_path / "half.gct.gz")
