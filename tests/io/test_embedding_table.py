"""Embeddings come back from every kind of file as they went in; what is wrong with a file is named."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from torchcell.io.embeddings import EmbeddingTable, read_embeddings
from torchcell.io.errors import InputError

IDS = np.array(["Gene::1", "Gene::2", "Disease::1", "NA"])


@pytest.fixture
def table() -> EmbeddingTable:
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    return EmbeddingTable(IDS, np.char.lower(IDS), np.array(["Gene", "Gene", "Disease", "Disease"]), values)


@pytest.mark.parametrize("name", ["e.h5ad", "e.parquet", "e.csv", "e.tsv"])
def test_what_is_written_is_read_again(table, tmp_path, name):
    table.write(tmp_path / name)
    again = read_embeddings(tmp_path / name).validate(name)
    for column in ("node_id", "node_name", "node_type"):
        assert getattr(again, column).tolist() == getattr(table, column).tolist()
    np.testing.assert_array_equal(again.values, table.values)


def test_an_h5ad_has_ids_names_and_types_as_columns_and_says_where_it_is_from(table, tmp_path):
    table.write(tmp_path / "e.h5ad", {"checkpoint": "best.ckpt"})
    held = anndata.read_h5ad(tmp_path / "e.h5ad")
    assert held.obs_names.tolist() == IDS.tolist()
    assert list(held.obs) == ["id", "name", "type"]
    assert held.uns["checkpoint"] == "best.ckpt"


def test_another_programs_h5ad_is_read_by_its_index_sparse_or_not(table, tmp_path):
    obs = pd.DataFrame({"sort": ["a", "a", "b", "b"]}, index=IDS)
    anndata.AnnData(sp.csr_matrix(table.values), obs=obs).write_h5ad(tmp_path / "e.h5ad")
    again = read_embeddings(tmp_path / "e.h5ad", node_type="sort")
    np.testing.assert_array_equal(again.values, table.values)
    assert again.node_id.tolist() == IDS.tolist()
    assert again.node_type.tolist() == [*"aabb"]
    assert set(read_embeddings(tmp_path / "e.h5ad").node_type) == {"all"}


def test_arrays_of_an_npz_are_read_and_objects_are_not_unpickled(table, tmp_path):
    np.savez(tmp_path / "e.npz", ids=IDS, vectors=table.values, types=table.node_type)
    assert read_embeddings(tmp_path / "e.npz").node_type.tolist() == table.node_type.tolist()
    np.savez(tmp_path / "p.npz", ids=IDS.astype(object), vectors=table.values)
    with pytest.raises(InputError, match="can't be read as npz of plain arrays"):
        read_embeddings(tmp_path / "p.npz")
    np.savez(tmp_path / "s.npz", ids=IDS[:2], vectors=table.values)
    with pytest.raises(InputError, match=r"2 ids.*shape \(4, 3\)"):
        read_embeddings(tmp_path / "s.npz")
    np.savez(tmp_path / "n.npz", names=IDS, vectors=table.values)
    with pytest.raises(InputError, match=r"no array 'ids'; it holds \['names', 'vectors'\]"):
        read_embeddings(tmp_path / "n.npz")


def test_columns_go_by_the_names_that_are_given(tmp_path):
    (tmp_path / "e.csv").write_text("node,sort,x,y\nNA,a,1,2\nb,a,3,4\n")
    found = read_embeddings(tmp_path / "e.csv", "node", "sort")
    assert (found.node_id.tolist(), found.values.tolist()) == (["NA", "b"], [[1, 2], [3, 4]])
    with pytest.raises(InputError, match=r"no column 'id'; the nearest are .*; name it with --ids"):
        read_embeddings(tmp_path / "e.csv")
    with pytest.raises(InputError, match=r"no column 'srot'; the nearest are \['sort'.*; name it with --type"):
        read_embeddings(tmp_path / "e.csv", "node", "srot")
    with pytest.raises(InputError, match="columns that hold no numbers: 'sort'"):
        read_embeddings(tmp_path / "e.csv", "node")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,x\na,1\nb,\nc,nan\nd,inf\n", r"3 node\(s\) with NaN or an infinity.*: 'b', 'c', 'd'"),
        ("id,x,y\na,1,0\nb,0,0\nc,0,0\n", r"2 node\(s\) with a vector of zeros.*: 'b', 'c'"),
        ("id,x\na,1\nb,2\na,3\n", "ids that stand twice: 'a'"),
        ("id,x\na,1\n", "holds one node, 'a'"),
        ("id,name\na,b\nb,c\n", "has no column of numbers beside 'id', 'name'"),
        ("id,x\n,1\nb,2\n", r"1 row\(s\) without an id: 'row 2'"),
        ("id,x\n2-Sep,1\nb,2\n", "what a spreadsheet made of gene names, in 1 row.*'row 2: 2-Sep'"),
        ("id,x\na,1\nb,two\nc,3\nd,4\n", "row 3: two"),
        ("id,x\na,1\nb,1e300\n", "'x' has numbers beyond .* too large for single precision: 'row 3: 1e.300'"),
    ],
)
def test_a_file_that_is_no_table_of_embeddings_is_refused_by_name(tmp_path, content, said):
    (tmp_path / "e.csv").write_text(content)
    with pytest.raises(InputError, match=said):
        read_embeddings(tmp_path / "e.csv").validate(tmp_path / "e.csv")


def test_zero_vectors_of_a_model_are_let_through_to_be_judged(table):
    table.values[1] = 0
    assert table.validate("model", zeros=True) is table


def test_files_of_other_endings_are_refused(table, tmp_path):
    with pytest.raises(InputError, match="the name must end in .h5ad, .parquet, .csv or .tsv"):
        table.write(tmp_path / "e.txt")
    (tmp_path / "e.h5ad").write_text("no h5ad")
    with pytest.raises(InputError, match="can't be read as HDF5"):
        read_embeddings(tmp_path / "e.h5ad")
    with pytest.raises(InputError, match="no such file"):
        read_embeddings(tmp_path / "none.npz")
