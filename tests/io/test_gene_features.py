"""A table of gene features is read by name, and refused with the genes and columns that are wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from torchcell.io.errors import InputError
from torchcell.io.gene_features import GeneFeatures, read_gene_features

GOOD = "size,gene,charge\n1.5,A,-2\n3,NA,1e-3\n"


def write(tmp_path, text: str, name: str = "features.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_features_are_read_whatever_the_order_of_columns(tmp_path, ending):
    path = tmp_path / f"features.{ending}"
    table = pd.DataFrame({"size": [1.5, 3], "gene": ["A", "NA"], "charge": [-2, 1e-3]})
    if ending == "parquet":
        table.set_index("gene").to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if ending == "tsv" else ",", index=False)
    features = read_gene_features(path)
    assert features.genes.tolist() == ["A", "NA"], "NA is a gene's name like any other"
    assert features.columns == ("size", "charge")
    assert features.values.dtype == np.float32
    np.testing.assert_array_equal(features.values, np.array([[1.5, -2], [3, 1e-3]], np.float32))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,size\nA,1\n", "no column 'gene'.*'name'"),
        ("gene,size\nA,1\n,2\n", "without a gene: 'row 3'"),
        ("gene\nA\n", "no column of features"),
        ("gene,size,note\nA,1,good\nB,2,bad\n", "hold no numbers: 'note'; leave them out"),
        ("gene,size\nA,1\nB,2\nC,many\n", "'size' holds numbers but for 'row 4: many'"),
        ("gene,size,mass\nA,1,2\nB,,3\nC,4,\n", r"2 gene\(s\) without a finite.*'B', 'C', in the columns 'size', 'mass'"),
        ("gene,size\nA,inf\n", "'A', in the columns 'size'"),
        ("gene,size\nA,1e300\n", "'size' has numbers beyond .*'row 2: 1e.300'"),
        ("gene,size\nA,1\nB,2\nA,3\n", "genes twice: 'A'"),
        (",gene,size\nx,A,1\n", "columns without a name: 'column 1, which begins with x'"),
        ("gene,size\n1-Mar,1\n", "what a spreadsheet made of gene names, in 1 row.*'row 2: 1-Mar'"),
    ],
)  # fmt: skip
def test_a_bad_table_names_the_file_and_what_is_wrong(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=said) as raised:
        read_gene_features(path)
    assert str(path) in str(raised.value)


def test_values_follow_the_genes_asked_for(tmp_path):
    features = read_gene_features(write(tmp_path, "gene,size\nA,1\nB,2\nC,3\n"))
    assert features.aligned(["C", "A"]).tolist() == [[3], [1]]
    assert features.aligned([]).shape == (0, 1)


def test_genes_without_features_are_named_with_near_matches():
    features = GeneFeatures(np.array(["YAL001C", "YAL002W"]), ("size",), np.ones((2, 1), np.float32))
    with pytest.raises(InputError, match=r"2 of 3 genes.*'yal002w', 'zzz'; did you mean yal002w -> YAL002W.*Add a row"):
        features.aligned(["YAL001C", "yal002w", "zzz"])


def test_columns_are_put_in_order_by_name():
    features = GeneFeatures(np.array(["A"]), ("size", "charge"), np.array([[1, 2]], np.float32))
    assert features.in_columns(["charge", "size"]).values.tolist() == [[2, 1]]
    with pytest.raises(InputError, match="wrong width: 2 columns where 3.*missing 'mass', too many none"):
        features.in_columns(["charge", "size", "mass"])
    with pytest.raises(InputError, match="missing none, too many 'size'"):
        features.in_columns(["charge"])
    with pytest.raises(InputError, match=r"missing 'sizes', too many 'size'.*Was 'size' to be \['sizes'\]"):
        features.in_columns(["charge", "sizes"])


def test_arrays_that_do_not_fit_and_columns_twice_are_refused():
    with pytest.raises(InputError, match="2 genes, 1 columns"):
        GeneFeatures(np.array(["A", "B"]), ("x",), np.ones((1, 1), np.float32)).validate()
    with pytest.raises(InputError, match="columns twice: 'x'"):
        GeneFeatures(np.array(["A"]), ("x", "x"), np.ones((1, 2), np.float32)).validate()
