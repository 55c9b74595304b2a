"""Gene lists from every kind of file, and by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchcell.cells.gene_selection import known_list, read_gene_list
from torchcell.io.errors import InputError
from torchcell.io.sources import fetch


def test_every_kind_of_file_gives_its_genes_once_and_in_order(tmp_path: Path) -> None:
    files = {
        "list.txt": "B\n# a comment\nA # why\n\nB\n",
        "list.csv": "gene,source\nB,x\nA,y\nB,z\n",
        "list.gmt": "one\tabout\tB\nnext\tabout\tA\tB\n",
        "list.json": '{"one": ["B"], "next": ["A", "B"]}',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        assert read_gene_list(tmp_path / name) == ["B", "A"], name
    assert read_gene_list(tmp_path / "list.gmt", ["next"]) == ["A", "B"]
    (tmp_path / "plain.json").write_text('["B", "A"]')
    assert read_gene_list(tmp_path / "plain.json") == ["B", "A"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "# nothing\n", "names no genes"),
        ("a.csv", "symbol\nA\n", "has no column 'gene'; it has 'symbol'; rename the column, or add one"),
        ("a.gmt", "one\tabout\n", "set 'one' has no genes; a GMT line is set, description, genes"),
        ("a.json", '{"one": {"A": 1}}', "'one' is no list of genes"),
        ("a.json", "3", "is no list of genes"),
        ("a.json", '{"one"', "can't be read as JSON"),
    ],
)
def test_a_file_that_is_no_list_says_why(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_gene_list(tmp_path / name)


def test_missing_files_and_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no gene list"):
        read_gene_list(tmp_path / "none.txt")
    (tmp_path / "a.gmt").write_text("hypoxia\tabout\tA\n")
    with pytest.raises(InputError, match="no set 'hypoxi'; the nearest are .'hypoxia'"):
        read_gene_list(tmp_path / "a.gmt", ["hypoxi"])


@pytest.mark.mirror
def test_known_lists_have_their_counts(mirror: Path) -> None:
    counts = {"transcription_factor": 1639, "cell_cycle": 97, "metabolic": 1123, "pluripotency": 560}
    assert {name: len(known_list(name)) for name in counts} == counts
    (gmt,) = fetch("hallmark_gene_sets").values()
    assert set(known_list("HALLMARK_HYPOXIA")) == set(read_gene_list(gmt, ["HALLMARK_HYPOXIA"]))
    with pytest.raises(InputError, match="no gene list named 'transcription_factors'; the nearest are"):
        known_list("transcription_factors")
