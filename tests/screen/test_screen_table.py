from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchcell.io.errors import InputError
from torchcell.screen.record import KINDS, Screen
from torchcell.screen.table import read_perturbations, read_screen, write_screen

GOOD = """growth,sample_id,kinds,genes,levels,note,query,yield
0.5,s1,,A|B,,first,A,1
-1.25,s2,added|absent,B|NA,0.5|,,B,
NaN,s3,,C,,third,,2
"""


def write(tmp_path: Path, text: str, name: str = "screen.csv") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_columns_in_any_order(tmp_path):
    screen = read_screen(write(tmp_path, GOOD))
    assert screen.sets() == [("A", "B"), ("B", "NA"), ("C",)]
    assert [KINDS[kind] for kind in screen.kind] == ["absent", "absent", "added", "absent", "absent"]
    np.testing.assert_array_equal(screen.level, np.array([np.nan, np.nan, 0.5, np.nan, np.nan], np.float32))
    assert screen.phenotype_names == ("growth", "yield")
    np.testing.assert_array_equal(screen.phenotype, np.array([[0.5, 1], [-1.25, np.nan], [np.nan, 2]], np.float32))
    assert screen.sample_id.tolist() == ["s1", "s2", "s3"]
    assert screen.columns["query"].tolist() == ["A", "B", ""]
    assert screen.columns["note"].tolist() == ["first", "", "third"]
    assert screen.name == "screen"


def test_numbers_that_are_not_asked_for_are_kept_beside(tmp_path):
    path = write(tmp_path, GOOD.replace("NaN", "7"))
    screen = read_screen(path, phenotypes=["growth"])
    assert screen.phenotype_names == ("growth",)
    np.testing.assert_array_equal(screen.columns["yield"], [1, np.nan, 2])


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_what_is_written_is_read_back(tmp_path, ending):
    before = read_screen(write(tmp_path, GOOD))
    flagged = Screen(**{**vars(before), "columns": {**before.columns, "flag": np.array([True, False, True])}})
    write_screen(flagged, tmp_path / f"again.{ending}")
    after = read_screen(tmp_path / f"again.{ending}")
    assert after.sets() == before.sets()
    for name in ("kind", "level", "phenotype", "sample_id", "ptr"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
    assert {k: v.tolist() for k, v in after.columns.items()} == {k: v.tolist() for k, v in flagged.columns.items()}


def test_float32_survives_text(tmp_path):
    values = np.random.default_rng(0).normal(size=200).astype(np.float32)
    rows = "".join(f"s{i},G{i},{value}\n" for i, value in enumerate(values))
    screen = read_screen(write(tmp_path, "sample_id,genes,y\n" + rows))
    write_screen(screen, tmp_path / "again.csv")
    assert read_screen(tmp_path / "again.csv").phenotype[:, 0].tolist() == values.tolist()


def test_ids_are_made_from_the_set_where_there_are_none(tmp_path):
    path = write(tmp_path, "genes,kinds,levels\nA|B,,\nA|B,absent|added,|2\n")
    assert read_perturbations(path).sample_id.tolist() == ["A|B", "A|B:added=2"]


def test_perturbations_need_no_phenotype_and_keep_the_rest(tmp_path):
    screen = read_perturbations(write(tmp_path, GOOD))
    assert screen.phenotype.shape == (3, 0)
    assert screen.phenotype_names == ()
    assert screen.sets() == [("A", "B"), ("B", "NA"), ("C",)]
    assert screen.columns["growth"].tolist()[:2] == [0.5, -1.25]


def test_a_table_with_an_index_and_missing_cells_in_parquet(tmp_path):
    table = pd.DataFrame({"sample_id": ["a", "b"], "genes": ["A", "B|C"], "kinds": [None, None], "y": [1, 2]})
    table.set_index("sample_id").to_parquet(tmp_path / "screen.parquet")
    screen = read_screen(tmp_path / "screen.parquet")
    assert screen.sample_id.tolist() == ["a", "b"]
    assert screen.phenotype[:, 0].tolist() == [1, 2]
    assert set(screen.kind) == {KINDS.index("absent")}


BAD = {
    "s2,A|A,,,1": "gene named twice: 's2'",
    "s2,,,,1": "empty gene set or gene name: 's2'",
    "s2,A|,,,1": "empty gene set or gene name: 's2'",
    "s2,A|B,absent|broken,,1": "kind that is none of absent, .*: 's2'",
    "s2,A|B,absent,,1": "another number of kinds than of genes: 's2'",
    "s2,A|B,,1|2|3,1": "another number of levels than of genes: 's2'",
    "s2,A|B,,1|high,1": "level that is no finite number: 's2'",
    "s2,A|B,,1|inf,1": "level that is no finite number: 's2'",
    "s2,A|B,,,inf": "infinite phenotype.*: 's2'",
    "s2,A|B,,,": "no phenotype at all: 's2'",
    "s1,A|B,,,1": "sample id used twice: 's1'",
    ",A|B,,,1": "no sample id: 'row 5'",
    "s2,Z|Y,,,1": "earlier row has too: 's2'",
    "s2,A|B,,,much": "column 'y' holds numbers but for 'row 5: much'",
}


@pytest.mark.parametrize("first", [0, 1])
def test_row_numbers_with_a_name_are_no_phenotype_unless_they_are_chosen(tmp_path, first):
    """Half of the validation score was that of the row number."""
    path = write(tmp_path, "X,genes,y\n" + "".join(f"{i + first},G{i},{i % 3}\n" for i in range(10)))
    with pytest.warns(UserWarning, match=r"columns that count the rows are no phenotypes: 'X'; .*phenotypes="):
        screen = read_screen(path)
    assert screen.phenotype_names == ("y",)
    assert screen.columns["X"].tolist() == list(range(first, first + 10))
    assert read_screen(path, phenotypes=["X"]).phenotype_names == ("X",)
    moved = write(tmp_path, "X,genes,y\n" + "".join(f"{9 - i},G{i},{i % 3}\n" for i in range(10)))
    assert read_screen(moved).phenotype_names == ("X", "y")


def test_an_empty_column_is_no_phenotype(tmp_path):
    path = write(tmp_path, "genes,y,comment\nA,1,\nB,2,NA\n")
    with pytest.warns(UserWarning, match="columns that are empty are no phenotypes: 'comment'"):
        assert read_screen(path).phenotype_names == ("y",)
    with pytest.raises(InputError, match="phenotype column 'comment' holds no numbers"):
        read_screen(path, phenotypes=["comment"])


@pytest.mark.parametrize("words", [("TRUE", "FALSE"), ("true", "false"), ("True", "False")])
def test_truth_values_are_0_and_1_where_there_are_no_numbers_or_they_are_chosen(tmp_path, words):
    path = write(tmp_path, f"genes,dead\nA,{words[0]}\nB,{words[1]}\n")
    assert read_screen(path, task="binary").phenotype.tolist() == [[1], [0]]
    path = write(tmp_path, f"genes,dead,y\nA,{words[0]},3\nB,{words[1]},4\nC,,5\n")
    assert read_screen(path).phenotype_names == ("y",)
    np.testing.assert_array_equal(read_screen(path, ["dead", "y"]).phenotype, [[1, 3], [0, 4], [np.nan, 5]])


def test_truth_values_of_a_parquet_file(tmp_path):
    pd.DataFrame({"genes": ["A", "B"], "dead": [True, False]}).to_parquet(tmp_path / "t.parquet")
    assert read_screen(tmp_path / "t.parquet").phenotype.tolist() == [[1], [0]]


@pytest.mark.parametrize("phenotypes", [None, ["dead"]])
def test_yes_and_no_are_refused_with_what_to_write(tmp_path, phenotypes):
    with pytest.raises(InputError, match="'dead'.* holds no numbers but 'no', 'yes': write 1 and 0"):
        read_screen(write(tmp_path, "genes,dead\nA,yes\nB,No\nC,\n"), phenotypes)


def test_a_phenotype_with_one_value_is_refused(tmp_path):
    path = write(tmp_path, "genes,y\nA,1\nB,\nC,1\n")
    with pytest.raises(InputError, match=r"no phenotype at all: 'B'"):
        read_screen(path)
    with pytest.raises(InputError, match=r"y has one value only \(1\); data.record.phenotypes="):
        read_screen(write(tmp_path, "genes,y\nA,1\nC,1\n"))
    path = write(tmp_path, "genes,y,z\nA,1,0.5\nB,,1\nC,1,2\n")
    with pytest.warns(UserWarning, match="columns that have one value only are no phenotypes: 'y'"):
        assert read_screen(path).phenotype_names == ("z",)
    with pytest.raises(InputError, match=r"y has one value only \(1\)"):
        read_screen(path, ["y", "z"])
    assert read_screen(path, "z").phenotype_names == ("z",), "a text is a list of one"


@pytest.mark.parametrize(
    ("name", "role"),
    [("Kinds", "kinds"), ("kind", "kinds"), ("Level", "levels"), ("queries", "query"), ("Sample ID", "sample_id")],
)
def test_a_name_that_is_nearly_that_of_a_role_is_refused(tmp_path, name, role):
    """All members were absent: the column Kinds was kept as text that nobody reads."""
    path = write(tmp_path, f"genes,{name},y\nA|B,added|added,1\nC,added,2\n")
    for reader in (read_screen, read_perturbations):
        with pytest.raises(InputError, match=f"'{name} -> {role}'; rename"):
            reader(path)


@pytest.mark.parametrize("row", list(BAD))
@pytest.mark.parametrize("named", [True, False])
def test_a_bad_row_is_named(tmp_path, row, named):
    text = f"sample_id,genes,kinds,levels,y\ns1,Y|Z,,,1\nt,P,,,2\nu,Q,,,3\n{row}\n"
    with pytest.raises(InputError, match=BAD[row]):
        read_screen(write(tmp_path, text), phenotypes=["y"] if named else None)


@pytest.mark.parametrize("row", [row for row in BAD if row[-1] == "1"])
def test_a_bad_row_to_predict_is_named(tmp_path, row):
    text = f"sample_id,genes,kinds,levels,y\ns1,Y|Z,,,1\nt,P,,,2\n{row}\n"
    with pytest.raises(InputError, match=BAD[row].replace("row 5", "row 4")):
        read_perturbations(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("sample_id,gene\na,A\n", {}, "no column 'genes'.*did you mean genes -> gene. Rename the column"),
        ("sample_id,genes\na,A\n", {}, "no column of numbers to learn from"),
        ("sample_id,genes,growth\na,A,1\n", {"phenotypes": ["grwth"]}, r"'grwth' is not there.*\['growth'\]"),
        ("sample_id,genes,note\na,A,good\n", {"phenotypes": ["note"]}, "'note' holds"),
        ("sample_id,genes,y\na,A,2\n", {"task": "binary"}, "binary phenotype other than 0 or 1: 'a'"),
        ("", {}, "is empty"),
        ("sample_id,genes,y\n", {}, "no rows"),
    ],
)
def test_a_bad_file_is_told_in_one_error(tmp_path, text, options, message):
    with pytest.raises(InputError, match=message):
        read_screen(write(tmp_path, text), **options)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_screen(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"must be a \.csv, \.tsv, \.parquet file"):
        read_screen(write(tmp_path, GOOD, "screen.xlsx"))
    with pytest.raises(InputError, match="can't be read as parquet"):
        read_screen(write(tmp_path, GOOD, "screen.parquet"))
    with pytest.raises(InputError, match=r"must be a \.csv, \.tsv, \.parquet file"):
        write_screen(read_screen(write(tmp_path, GOOD)), tmp_path / "screen.txt")


def test_a_mark_of_excel_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "screen.csv"
    path.write_text("sample_id,genes,y\na,A,1\n", encoding="utf-8-sig")
    assert read_screen(path).sample_id.tolist() == ["a"]


def test_no_file_is_left_where_writing_fails(tmp_path, monkeypatch):
    screen = read_screen(write(tmp_path, GOOD))
    write_screen(screen, tmp_path / "out.csv")
    before = (tmp_path / "out.csv").read_bytes()

    def full_disk(self, target, **_):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_screen(screen, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"screen.csv", "out.csv"}


@pytest.mark.parametrize("reader", [read_screen, read_perturbations])
def test_types_is_another_name_of_kinds(tmp_path, reader):
    """docs/concepts/contracts.md calls the column so; it was kept as text, and all members were absent."""
    rows = ["A|B,added|,1", "C,knockdown,2"]
    named = {name: reader(write(tmp_path, "\n".join([f"genes,{name},y", *rows, ""]))) for name in ("kinds", "types")}
    assert [KINDS[kind] for kind in named["types"].kind] == ["added", "absent", "knockdown"]
    assert named["types"].fingerprint() == named["kinds"].fingerprint()
    with pytest.raises(InputError, match="'kinds' and 'types', which mean the same; leave one out"):
        reader(write(tmp_path, "genes,kinds,types,y\nA,added,added,1\nB,added,added,2\n"))
