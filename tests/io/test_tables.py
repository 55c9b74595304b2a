"""No table is misread in silence: what a file can be is found out, and what it can't be is refused by row and column."""

from __future__ import annotations

import gzip
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchcell.cells.gene_selection import read_gene_list
from torchcell.core.split import Split
from torchcell.drug_response.structures import structures_of
from torchcell.io.embeddings import read_embeddings
from torchcell.io.errors import InputError
from torchcell.io.gene_features import read_gene_features
from torchcell.io.gene_names import alias_table
from torchcell.io.tables import number_cells, read_table, required_numbers, text_cells
from torchcell.knowledge_graph.table import read_knowledge_graph
from torchcell.screen.table import read_screen
from torchcell.screen.yeast_cell import read_network


def write(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def rows_of(path: Path) -> list[list[str]]:
    table = read_table(path)
    return [list(table.columns), *map(list, zip(*(text_cells(table, name) for name in table.columns), strict=True))]


WANTED = [["gene", "note"], ["Sørensen", "a b"], ["NA", ""]]
TEXT = "gene,note\nSørensen,a b\nNA,\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.csv.gz"])
def test_the_separator_is_found_in_the_header_whatever_the_ending(tmp_path, separator, name):
    content = TEXT.replace(",", separator).encode()
    assert rows_of(write(tmp_path, gzip.compress(content, mtime=0) if name.endswith("gz") else content, name)) == WANTED


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_ends_of_lines(tmp_path, encoding, newline):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows_of(write(tmp_path, TEXT.replace("\n", newline).encode(encoding))) == WANTED


def test_latin_1_is_read_with_a_note(tmp_path):
    with pytest.warns(UserWarning, match="not in UTF-8 and is read as Latin-1, e.g. .*Sørensen"):
        assert rows_of(write(tmp_path, TEXT.encode("latin-1"))) == WANTED


@pytest.mark.parametrize(
    "text",
    [
        " gene , note \n A , b \n",
        'gene, note\n"A", "b"\n',
        'gene,note\n" A",b\u00a0\n',
        "\n\ngene,note\n\nA,b\n\n",
        "\ufeff\u200bgene,note\u200b\nA\ufeff,\u2003b\n",
        "sep=;\ngene;note\nA;b\n",
        "gene,note\nA,b,\n",
        "gene,note,\nA,b,\n",
        "gene,note\nA,b, ,,\n",
    ],
)
def test_blanks_empty_lines_and_empty_surplus_cells_mean_nothing(tmp_path, text):
    assert rows_of(write(tmp_path, text)) == [["gene", "note"], ["A", "b"]]


def test_quoted_cells_hold_separators_quotes_and_ends_of_lines(tmp_path):
    text = 'gene,note\nA,"b, ""c""\nd"\n"E,F",5"x\n'
    assert rows_of(write(tmp_path, text)) == [["gene", "note"], ["A", 'b, "c"\nd'], ["E,F", '5"x']]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_uneven_rows_are_named_all_at_once(tmp_path, separator):
    text = "a,b\n1,2\n\n1,2,3\n1\n1,2,,4\n1,2,\n".replace(",", separator)
    said = r"3 of 5 rows have another number of cells than the header, which has 2 \(a, b\): "
    with pytest.raises(InputError, match=said + "'line 4: 3', 'line 5: 1', 'line 6: 4'; name every column"):
        read_table(write(tmp_path, text))


def test_row_names_that_shift_the_columns_are_refused_with_the_way_out(tmp_path):
    """R's write.table: the header lacks the name of the first column, and each column gets its neighbor's values."""
    with pytest.raises(InputError, match="2 of 2 rows.*row.names=FALSE"):
        read_table(write(tmp_path, "genes\tfitness\n1\tA\t0.5\n2\tB\t0.6\n", "t.tsv"))


def test_the_rows_of_many_read_in_parallel_are_named_by_their_lines(tmp_path):
    lines = [f"A{i},B{i},{i}" for i in range(200_000)]
    lines[150_000] += ",7"
    with pytest.raises(InputError, match="1 of 200,000 rows.*'line 150002: 4'"):
        read_table(write(tmp_path, "\n".join(["a,b,c", *lines])))


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
@pytest.mark.parametrize("numbers", [[0, 1], [7, 3]])
def test_row_numbers_are_left_out_with_a_note(tmp_path, name, numbers):
    path = write(tmp_path, f"{name},gene,x\n{numbers[0]},A,1\n{numbers[1]},B,2\n")
    said = rf"first column has no name and counts the rows \({min(numbers)} to {max(numbers)}\); it is left out"
    with pytest.warns(UserWarning, match=said):
        assert list(read_table(path).columns) == ["gene", "x"]


@pytest.mark.parametrize("numbers", [[7, 20], [3, 3], [13805, 42303]])
def test_nameless_numbers_that_count_no_rows_are_refused(tmp_path, numbers):
    """Measured counts without a name were left out as row numbers."""
    with pytest.raises(InputError, match=f"columns without a name: 'column 1, which begins with {numbers[0]}'; name"):
        read_table(write(tmp_path, f",gene\n{numbers[0]},A\n{numbers[1]},B\n"))


def test_lists_of_text_in_a_parquet_file_are_sets(tmp_path):
    """The one gene was called "['A' 'B']"."""
    pd.DataFrame({"genes": [["A", "B"], ["C"]], "y": [1.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
    assert read_screen(tmp_path / "t.parquet").sets() == [("A", "B"), ("C",)]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_quoted_name_in_the_header_holds_ends_of_lines(tmp_path, newline):
    text = 'gene,"note\nof ""two\n lines"""\nA,b\n'.replace("\n", newline)
    assert rows_of(write(tmp_path, text)) == [["gene", 'note of "two lines"'], ["A", "b"]]
    with pytest.raises(InputError, match="1 of 1 rows.*'line 4: 3'"):
        read_table(write(tmp_path, 'gene,"note\nof two\nlines"\nA,b,c\n'))


def test_row_numbers_of_a_parquet_file_too(tmp_path):
    table = pd.DataFrame({"gene": ["A", "B", "C"], "x": [1.0, 2.0, 3.0]})
    table.iloc[[0, 2]].to_parquet(tmp_path / "t.parquet")
    with pytest.warns(UserWarning, match="counts the rows"):
        assert list(read_table(tmp_path / "t.parquet").columns) == ["gene", "x"]
    table.assign(gene=table["gene"].astype("category")).to_parquet(tmp_path / "c.parquet")
    assert rows_of(tmp_path / "c.parquet")[1:] == [["A", "1.0"], ["B", "2.0"], ["C", "3.0"]]


def test_names_at_fault_are_told_together(tmp_path):
    said = "columns without a name: 'column 1, which begins with x', 'column 4, which begins with 2'; .*same name: 'a'"
    with pytest.raises(InputError, match=said):
        read_table(write(tmp_path, ",a,a ,\nx,1,2,2\ny,1,2,2\n"))


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "t.csv", "is empty"),
        ("a,b\n\n", "t.csv", "has no rows"),
        (",\n,\n", "t.csv", "no column has a name"),
        ('a,b\n1,"2\n3,4\n', "t.csv", "line 3 can't be read.*quotation marks"),
        (b"PK\x03\x04....", "t.csv", "is an Excel or zip file; save the table as CSV"),
        (b"a,b\n\0\0", "t.csv", "is no text; save"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "t.csv.gz", "can't be decompressed"),
        ("a,b\n1,2\n", "t.xlsx", "must be a .csv, .tsv, .parquet file"),
        ("a,b\n1,2\n", "t.parquet", "can't be read as parquet"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, name, said):
    with pytest.raises(InputError, match=said):
        read_table(write(tmp_path, content, name))


def test_what_a_spreadsheet_writes_for_a_missing_number_is_missing(tmp_path):
    words = ["#VALUE!", "#N/A", "N/A", "NA", "nan", "NULL", "", "#DIV/0!", "1.5", "-2e-3", "+1"]
    table = read_table(write(tmp_path, "g,x\n" + "".join(f"A,{word}\n" for word in words)))
    numbers = number_cells(table["x"], "x", "t", lenient=False)
    np.testing.assert_array_equal(numbers, [np.nan] * 8 + [1.5, -2e-3, 1])


def test_decimal_commas_are_refused_and_no_text(tmp_path):
    table = read_table(write(tmp_path, "g;x;y\nA;0,5;1,5\nB;1;2,5\n"))
    for name, row in (("x", 2), ("y", 2)):
        with pytest.raises(InputError, match=f"column '{name}' has commas in its numbers: 'row {row}: .,5'.*point"):
            number_cells(table[name], name, "t", lenient=False)
    assert number_cells(table["x"], "x", "t", lenient=True) is None
    with pytest.raises(InputError, match="'g' holds numbers but for 'row 2: A', 'row 3: B'"):
        required_numbers(table, "g", "t")


# The same faults in each table that a user gives


def net(path: Path) -> object:
    return read_network(path, "mine")


def aliases(path: Path) -> object:
    return alias_table(path)


def nodes(path: Path) -> object:
    return read_knowledge_graph(path, write(path.parent, "source,edge_type,target\nA,m,B\n", "edges.csv"))


def edges(path: Path) -> object:
    return read_knowledge_graph(write(path.parent, "id,name,type\nA,A,k\nB,B,k\n", "nodes.csv"), path)


def structures(path: Path) -> object:
    return structures_of(path, np.array(["A"]))


READERS = {
    read_screen: ("genes,y", "A|B,1", "C,2"),
    net: ("source,target", "A,B", "B,C"),
    aliases: ("alias,gene", "X,A", "Y,B"),
    nodes: ("id,name,type", "A,a,k", "B,b,k"),
    edges: ("source,edge_type,target", "A,m,B", "A,n,B"),
    structures: ("pert_id,smiles", "A,C", "B,CC"),
    read_embeddings: ("id,x", "A,1", "B,2"),
    read_gene_features: ("gene,x", "A,1", "B,2"),
    read_gene_list: ("gene,x", "A,1", "B,2"),
    Split.load: ("sample_id,part", "A,train", "B,test"),
}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__qualname__)
def test_every_reader_takes_any_separator_blanks_a_mark_and_row_numbers(tmp_path, reader):
    header, *rows = READERS[reader]
    plain = reader(write(tmp_path, "\n".join([header, *rows])))
    odd = [f",{header}", *(f"{i},{row}" for i, row in enumerate(rows))]
    content = "\n".join(" ; ".join(line.split(",")) for line in odd).encode("utf-8-sig")
    with pytest.warns(UserWarning, match="counts the rows"):
        again = reader(write(tmp_path, content))
    for name, value in (vars(plain) if hasattr(plain, "__dict__") else {"": plain}).items():
        assert str(getattr(again, name, again)) == str(value), name


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__qualname__)
def test_every_reader_refuses_a_surplus_cell_and_a_name_that_stands_twice(tmp_path, reader):
    header, first, second = READERS[reader]
    with pytest.raises(InputError, match="1 of 2 rows have another number of cells.*'line 3: "):
        reader(write(tmp_path, f"{header}\n{first}\n{second},surplus\n"))
    twice = header.split(",")[0]
    with pytest.raises(InputError, match=f"columns with the same name: '{twice}'"):
        reader(write(tmp_path, f"{header},{twice}\n{first},1\n{second},2\n"))


GENES = [reader for reader in READERS if reader not in (structures, Split.load)]


@pytest.mark.parametrize(
    "date",
    ["2-Sep", "1-Mar", "01-Dec", "Sep-02", "2021-03-01", "2021-03-01 00:00:00", "01.03.2023", "#REF!", "2.31E+13"],
)
@pytest.mark.parametrize("reader", GENES, ids=lambda reader: reader.__qualname__)
def test_a_date_where_a_gene_should_be_is_refused(tmp_path, reader, date):
    header, first, second = READERS[reader]
    with pytest.raises(
        InputError, match=f"what a spreadsheet made of gene names, in 1 row.*'row 3: {re.escape(date)}'.*SEPTIN2"
    ):
        reader(write(tmp_path, f"{header}\n{first}\n{date},{second.partition(',')[2]}\n"))


@pytest.mark.parametrize("name", ["SEPT2", "MARCH1", "DEC1", "sep-1", "jun-1", "apr-1", "YAL001C", "NA", "1-octanol"])
def test_names_that_resemble_dates_are_names(tmp_path, name):
    assert read_network(write(tmp_path, f"source,target\n{name},B\n"), "mine").source.tolist() == [name]


def test_weights_of_a_network_must_be_numbers_and_not_all_0(tmp_path):
    """To leave a cell empty was the advice, and an empty cell the next error."""
    with pytest.raises(InputError, match="'weight' holds numbers but for 'row 3: high'; give a number there"):
        read_network(write(tmp_path, "source,target,weight\nA,B,1\nB,C,high\nC,D,2\n"), "mine")
    with pytest.raises(InputError, match="without a finite weight: 'B-C'; give numbers"):
        read_network(write(tmp_path, "source,target,weight\nA,B,1\nB,C,\n"), "mine")
    with pytest.raises(InputError, match="'weight' holds nothing but 0; give numbers, or leave"):
        read_network(write(tmp_path, "source,target,weight\nA,B,0\nB,C,0\n"), "mine")


def test_aliases_of_two_genes_are_counted(tmp_path):
    with pytest.warns(UserWarning, match=r"1 alias\(es\) stand for more than one gene and are not used: 'X'"):
        names = alias_table(write(tmp_path, "alias,gene\nx,A\nX,B\ny,C\n"))
    assert names is not None
    assert (names.resolve("x"), names.resolve("y")) == (None, "C")


# Screens


@pytest.mark.parametrize("sign", ["_", "/", ":", " "])
def test_sets_joined_by_a_sign_that_names_may_hold_are_noted(tmp_path, sign):
    rows = [f"G{i}{sign}G{j},{i + j}\n" for i in range(5) for j in range(i)]
    with pytest.warns(UserWarning, match=rf"each of 'G1{sign}G0', .* is taken for one gene; .*, as in A\|B"):
        read_screen(write(tmp_path, "genes,y\n" + "".join(rows)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_screen(write(tmp_path, f"genes,y\nG{sign}1,1\nG{sign}2,2\n"))


@pytest.mark.parametrize("joined", ['"A, B"', '"A,B"', "A;B", "A+B", "A + B"])
def test_genes_joined_by_another_sign_are_not_one_gene(tmp_path, joined):
    """60 genes of 30 were trained: 'A, B' and 'B, A'."""
    with pytest.raises(InputError, match=r"1 gene name\(s\) with ',', ';' or '\+' in them: 'row 3: A.*B'; .* A\|B"):
        read_screen(write(tmp_path, f"genes,y\nA|C,1\n{joined},2\n"))


@pytest.mark.parametrize("value", ["1e38", "-1e300"])
def test_numbers_that_training_cannot_square_are_refused(tmp_path, value):
    said = "column 'y' has numbers beyond .* too large for single precision: 'row 3: .*; rescale"
    with pytest.raises(InputError, match=said):
        read_screen(write(tmp_path, f"genes,y\nA|C,1\nB,{value}\n"))
    with pytest.raises(InputError, match=said.replace("'y'", "'weight'")):
        read_network(write(tmp_path, f"source,target,weight\nA,C,1\nB,C,{value}\n"), "mine")
    assert read_screen(write(tmp_path, "genes,y\nA|C,1\nB,1e-300\n")).phenotype.tolist() == [[1], [0]]


def test_all_that_is_wrong_with_the_sets_is_said_at_once(tmp_path):
    text = "sample_id,genes,kinds,levels,y\na,A|,,,1\n,B,,,1\nc,C,broken,,1\nd,D,,high,1\ne,E|F,,1,1\nf,2-Sep,,,1\n"
    said = "gene name: 'a'; 1 row.* no sample id: 'row 3'; column 'genes' .*'row 7: 2-Sep'.*; 1 row.*levels than of genes: 'e'; 1 row.*kind .*: 'c'"
    with pytest.raises(InputError, match=said):
        read_screen(write(tmp_path, text))


def test_sets_are_compared_whatever_the_order_of_their_members(tmp_path):
    rows = [
        "A|B,absent|added,1|2",
        "B|A,added|absent,2|1",
        "B|A,,",
        "A|B,,",
        "A|B|C,,",
        "C|B|A,,",
        "A|B,absent|added,2|1",
        "A,,",
    ]
    text = "genes,kinds,levels,sample_id,y\n" + "".join(f"{row},s{i},1\n" for i, row in enumerate(rows))
    with pytest.raises(
        InputError, match=r"3 sample\(s\) with a gene set that an earlier row has too: 's1', 's3', 's5';"
    ):
        read_screen(write(tmp_path, text))
