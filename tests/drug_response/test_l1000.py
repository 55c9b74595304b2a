"""The two L1000 sets with their known counts, and what is said of what they lack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchcell.drug_response import sources as l1000
from torchcell.drug_response.record import Response
from torchcell.drug_response.sources import l1000_level3, l1000_level5
from torchcell.io.errors import InputError
from torchcell.io.sources import fetch

pytestmark = pytest.mark.mirror


@pytest.fixture(scope="module")
def level3(mirror: Path) -> Response:
    return l1000_level3()


@pytest.fixture(scope="module")
def level5(mirror: Path) -> Response:
    return l1000_level5()


def test_level_3_has_its_known_counts(level3: Response) -> None:
    assert level3.treated.shape == level3.control.shape == (1461, 978)
    assert level3.smiles is not None
    assert level3.source is not None
    assert (level3.smiles != "").sum() == 1455
    assert len(np.unique(level3.smiles[level3.smiles != ""])) == 471
    lines = pd.Series(level3.cell_line).value_counts()
    assert (lines["A375"], lines["HT115"], len(lines) - 2) == (705, 661, 42)
    assert pd.Series(level3.source).value_counts().to_dict() == {
        "PRnet_HT115": 661, "LJP005": 351, "LJP009": 349, "TranSiGen": 100,
    }  # fmt: skip
    assert len(np.unique(level3.plate)) == 104
    _, row, count = np.unique(level3.condition, return_inverse=True, return_counts=True)
    assert (count[row] == 1).sum() == 805  # without a replicate of line, drug, dose and time


def test_a_drug_of_level_3_is_one_structure_and_a_structure_one_drug(level3: Response) -> None:
    assert level3.inchikey is not None
    pairs = pd.DataFrame({"drug": level3.drug, "key": level3.inchikey}).drop_duplicates()
    assert pairs["drug"].is_unique
    assert pairs["key"].is_unique
    assert len(pairs) == 468
    assert (level3.drug != "").all()


def test_profiles_without_a_dose_get_the_one_that_is_named_or_are_left_out(level3: Response) -> None:
    assert level3.dropped["profiles without dose and time, taken as 10 µM and 24 h"] == 100
    assert level3.source is not None
    assert set(level3.dose_value[level3.source == "TranSiGen"]) == {10.0}
    assert set(level3.time[level3.source == "TranSiGen"]) == {24.0}
    other = l1000_level3(unknown_dose=3, unknown_time=6)
    assert set(other.dose_value[level3.source == "TranSiGen"]) == {3.0}
    assert other.dose_value.dtype == other.time.dtype == np.float32
    told = l1000_level3(unknown_dose=None)
    assert len(told) == 1361
    assert told.dropped["profiles without dose and time"] == 100
    assert "TranSiGen" not in told.source


def test_one_line_or_several_are_chosen_by_name() -> None:
    assert len(l1000_level3("A375")) == 705
    assert len(l1000_level3(["A375", "HT115"])) == 1366
    with pytest.raises(InputError, match="no cell line 'HELLA'; the lines are .*A375, .*HT115"):
        l1000_level3(["A375", "HELLA"])


def test_level_5_has_its_known_counts(level5: Response) -> None:
    assert level5.treated.shape == (4621, 978)
    assert not level5.control.any()
    assert len(np.unique(level5.drug)) == 1356
    assert len(np.unique(level5.cell_line)) == 24
    known = level5.columns["moa"] != ""
    assert len(np.unique(level5.drug[known])) == 827
    assert (level5.columns["targets"][known] != "").all()
    assert level5.smiles is not None
    assert len(np.unique(level5.smiles[level5.smiles != ""])) == 10
    per_drug = pd.DataFrame({"drug": level5.drug, "line": level5.cell_line}).groupby("drug")["line"].nunique()
    assert (per_drug >= 5).sum() == 332
    assert not level5.dropped


def test_basal_profiles_are_matched_by_gene_name_not_by_place(level5: Response) -> None:
    """The two files hold the same 978 genes in another order."""
    (path,) = fetch("l1000_basal").values()
    table = pd.read_csv(path, index_col=0)
    assert table.columns.tolist() != level5.genes.tolist()
    assert level5.basal is not None
    for at in (0, 1000, 4620):
        line = table.loc[level5.cell_line[at]]
        np.testing.assert_allclose(level5.basal[at], line[level5.genes.tolist()].to_numpy(np.float32))


def test_a_line_without_a_basal_profile_is_left_out_named_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    profiles = l1000._basal

    def without_thp1(genes: np.ndarray) -> tuple[np.ndarray, list[str]]:
        values, lines = profiles(genes)
        kept = [i for i, line in enumerate(lines) if line != "THP1"]
        return values[kept], [lines[i] for i in kept]

    monkeypatch.setattr(l1000, "_basal", without_thp1)
    record = l1000_level5()
    assert record.dropped == {"signatures of lines without a basal profile ('THP1')": 399}
    assert len(record) == 4621 - 399
