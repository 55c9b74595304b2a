"""A large text file is read by blocks, and says what a small one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from torchcell.io import table_text
from torchcell.io.errors import InputError
from torchcell.io.tables import number_cells, read_table, text_cells, truth_values

ROWS = [f"s{i},Y{i}|Z{i % 7},{i}.5" for i in range(200)]
BODIES = {
    "plain": ROWS,
    "blanks": [*ROWS, " a , b|c ,\t7"],
    "letters beyond ASCII": [f"é{row}ü\u3000" for row in ROWS],
    "quotes": [*ROWS, '"a,b","c ""d""",1'],
    "quotes behind blanks": [*ROWS, 'a, "b",1'],
    "surplus empty cells": [f"{row},," for row in ROWS],
    "Latin-1": [*ROWS, "Sørensen,a,1"],
    "a long row": [f"s,{'A|' * 200}B,1", *ROWS],
    "one carriage return a line": ["\r".join(ROWS)],
}


def write(folder: Path, rows: list[str], header: str = "sample_id,genes,y") -> Path:
    content = "\n".join([header, *rows]) + "\n"
    (folder / "t.csv").write_bytes(content.encode("latin-1" if rows[-1].startswith("Sø") else "utf-8"))
    return folder / "t.csv"


@pytest.mark.parametrize("body", list(BODIES))
@pytest.mark.parametrize(
    "header", ["sample_id,genes,y", "sep=,\n\nsample_id,genes,y\n\n", "\n" * 200 + "sample_id,genes,y"]
)
@pytest.mark.filterwarnings("ignore:.*Latin-1")
def test_by_blocks_and_at_once_are_the_same_table(tmp_path, body, header, monkeypatch):
    path = write(tmp_path, BODIES[body], header)
    whole = read_table(path)
    monkeypatch.setattr(table_text, "BLOCK", 128)
    streamed = read_table(path)
    assert list(whole.columns) == list(streamed.columns) == ["sample_id", "genes", "y"]
    for name in whole:
        assert text_cells(whole, name) == text_cells(streamed, name)


@pytest.mark.parametrize("rows", [[*ROWS, "a,b"], [*ROWS, "a,b,1,d"], [*ROWS, 'a,"b,1']])
def test_by_blocks_and_at_once_refuse_rows_in_the_same_words(tmp_path, rows, monkeypatch):
    path, said = write(tmp_path, rows), []
    for block in (2**24, 128):
        monkeypatch.setattr(table_text, "BLOCK", block)
        with pytest.raises(InputError, match="line 202") as refused:
            read_table(path)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path, parse = write(tmp_path, ROWS), table_text._fast
    monkeypatch.setattr(table_text, "BLOCK", 128)

    def grows(*arguments):
        path.write_text(path.read_text() + "late,row,1\n")
        return parse(*arguments)

    monkeypatch.setattr(table_text, "_fast", grows)
    with pytest.raises(InputError, match="was changed while it was read; run again"):
        read_table(path)


def test_columns_of_words_are_judged_by_their_different_words(tmp_path):
    rows = [f"s{i},A|B,{('TRUE', 'false', 'NA')[i % 3]}" for i in range(30)]
    column = read_table(write(tmp_path, rows))["y"]
    assert number_cells(column, "y", "t", lenient=False) is None
    np.testing.assert_array_equal(truth_values(column), np.resize([1, 0, np.nan], 30))
    rows = [f"s{i},A|B,{'high' if i in (3, 17) else i}" for i in range(30)]
    column = read_table(write(tmp_path, rows))["y"]
    with pytest.raises(InputError, match="'y' holds numbers but for 'row 5: high', 'row 19: high'; leave"):
        number_cells(column, "y", "t", lenient=False)
