"""Data are known by their values: one changed value changes the fingerprint, another way to store them does not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace

import anndata
import numpy as np
import pytest
from scipy import sparse

from torchcell.cells import scan
from torchcell.cells.backed import BackedMatrix
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.simulate import simulate_cells
from torchcell.cells.table import MatrixOptions, cells_file
from torchcell.drug_response.molecules import Molecules, Morgan
from torchcell.drug_response.simulate import simulate_response
from torchcell.graph.cell_graph import CellGraph
from torchcell.io import file_facts
from torchcell.io.categorical import Categorical
from torchcell.io.errors import InputError
from torchcell.io.file_facts import remembered, verifying
from torchcell.io.fingerprint import NOT_VALUES, fingerprint, matrix_fingerprint
from torchcell.knowledge_graph.record import link_samples
from torchcell.knowledge_graph.simulate import simulate_knowledge_graph
from torchcell.screen.simulate import CellDesign, simulate_cell


def screen():
    made = simulate_cell(CellDesign(n_genes=120, n_sets=80, n_queries=8, n_arrays=30)).screen
    level = np.where(np.arange(len(made.gene)) % 2, 0.5, np.nan).astype(np.float32)
    return replace(made, level=level)


def response():
    made = simulate_response().response
    made = made.subset(np.arange(40))
    n = len(made)
    structures = np.array(["CCO", "c1ccccc1", "CCN", "CC(=O)O"])[np.unique(made.drug, return_inverse=True)[1] % 4]
    made = replace(made, smiles=structures, inchikey=np.full(n, ""), source=np.full(n, "x"), basal=made.control + 1)
    return replace(made, columns={"moa": np.full(n, "inhibitor")}, molecules=Morgan(bits=32)(made))


def cells():
    return simulate_cells(n_singles=4, n_doubles=2).cells


def conditions():
    return Pseudobulk.from_cells(cells().lognorm(), ("cell_line",))


def graph():
    return replace(simulate_knowledge_graph().graph, directed=())


def links():
    return link_samples(graph(), "all")


RECORDS = {
    "screen": screen,
    "response": response,
    "cells": cells,
    "conditions": conditions,
    "knowledge graph": graph,
    "links": links,
}


def other(value):
    """The same kind of value with one entry changed."""
    if isinstance(value, np.ndarray):
        changed = value.copy()
        at = np.unravel_index(changed.size - 1, changed.shape)
        if changed.dtype.kind == "U":
            changed = changed.astype(object)
            changed[at] = f"{changed[at]}x"
            return changed.astype(str)
        if changed.dtype == bool:
            changed[at] = ~changed[at]
        else:
            changed[at] = 7 if np.isnan(changed[at]) else changed[at] + 1
        return changed
    if isinstance(value, Categorical):
        return Categorical.of(other(np.asarray(value)))
    if sparse.issparse(value):
        changed = value.copy()
        changed.data[-1] += 1
        return changed
    if isinstance(value, dict):
        return {name: other(each) for name, each in value.items()} or {"new": "x"}
    if isinstance(value, tuple):
        return (*value[:-1], f"{value[-1]}x") if value else ("x",)
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, Molecules):
        return replace(value, vectors=other(value.vectors))
    if hasattr(value, "fingerprint"):  # a record within a record
        return replace(value, node_name=other(value.node_name)) if hasattr(value, "node_name") else changed_cells(value)
    return 3.5 if value is None else value + 1


def changed_cells(record):
    return replace(record, covariates=other(record.covariates))


@pytest.mark.parametrize("kind", RECORDS)
def test_one_other_value_anywhere_in_a_record_is_another_fingerprint(kind):
    record = RECORDS[kind]()
    known = record.fingerprint()
    assert known == RECORDS[kind]().fingerprint()
    for field in fields(record):
        value = getattr(record, field.name)
        if value is None or field.name in NOT_VALUES:
            continue
        assert replace(record, **{field.name: other(value)}).fingerprint() != known, field.name
    assert replace(record, name="renamed").fingerprint() == known


def test_cells_are_known_by_their_counts_and_totals_whose_logarithms_differ_between_processors():
    record = cells().lognorm()
    known = record.fingerprint()
    last_digit = record.X.copy()
    last_digit.data = np.nextafter(last_digit.data, np.float32(1))
    assert replace(record, X=last_digit).fingerprint() == known
    assert replace(record, X=last_digit, counts=None).fingerprint() != replace(record, counts=None).fingerprint()
    for field in ("counts", "totals", "library"):
        assert replace(record, **{field: other(getattr(record, field))}).fingerprint() != known, field


def test_a_graph_is_known_by_its_edges_and_weights():
    matrix = sparse.csr_matrix(np.array([[0, 1.0], [1.0, 0]]))
    known = CellGraph(["A", "B"], {"physical": matrix}).fingerprint()
    assert CellGraph(["A", "B"], {"physical": matrix.copy()}).fingerprint() == known
    assert CellGraph(["A", "B"], {"physical": matrix * 2}).fingerprint() != known
    assert CellGraph(["A", "C"], {"physical": matrix}).fingerprint() != known


def test_a_molecules_vector_and_atoms_count_and_what_makes_others_does_not():
    table = Morgan(bits=32)(response())
    assert replace(table, vectors=other(table.vectors)).fingerprint() != table.fingerprint()
    assert replace(table, features={"_target_": "elsewhere"}).fingerprint() == table.fingerprint()


def test_storage_is_no_content():
    dense = np.array([[0, 1.5, 0], [0, 0, 0], [2, 0, np.nan]], dtype=np.float32)
    same = [
        sparse.csr_matrix(dense),
        sparse.csc_matrix(dense),
        sparse.coo_matrix(dense),
        dense.astype(np.float64),
        sparse.csr_matrix((np.array([0.5, 1.0, 2.0, np.nan, 0.0]), [1, 1, 0, 2, 1], [0, 2, 2, 5]), shape=(3, 3)),
    ]
    assert {matrix_fingerprint(matrix) for matrix in same} == {matrix_fingerprint(dense)}
    assert matrix_fingerprint(dense[:2]) != matrix_fingerprint(dense[:2, :2])
    texts = np.array(["a", "bcd", "µ"])
    assert fingerprint(texts) == fingerprint(texts.astype("<U9")) == fingerprint(texts.astype(object))
    assert fingerprint(np.array([0.0, 1])) == fingerprint(np.array([-0.0, 1], dtype=np.float32))
    every_other = np.arange(12.0).reshape(3, 4)
    assert fingerprint(every_other[:, ::2]) == fingerprint(every_other[:, ::2].copy())
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_values_that_look_alike_differ():
    unlike = [
        1, 1.0, True, "1", None, [1], ["1"], [], {}, ["ab", "c"], ["a", "bc"], {"a": "b"}, ["a", "b"],
        np.array([1]), np.array([1.0]), np.array([True]), np.array(["1"]), np.array([[1]]), np.empty((0, 2)),
        np.empty((2, 0)), np.broadcast_to(np.float32(1), 3), np.array(["ab", ""]), np.array(["a", "b"]),
    ]  # fmt: skip
    found = [fingerprint(value) for value in unlike]
    assert len(set(found)) == len(found)
    with pytest.raises(TypeError, match="no fingerprint of a set"):
        fingerprint({1, 2})
    with pytest.raises(TypeError, match="datetime64"):
        fingerprint(np.array(["2020-01-01"], dtype="datetime64[D]"))


@pytest.mark.long
def test_a_fingerprint_is_the_same_in_another_process_whatever_its_threads_and_hash_seed():
    made = "from test_fingerprint import RECORDS; print(*(make().fingerprint() for make in RECORDS.values()))"
    here = " ".join(make().fingerprint() for make in RECORDS.values())
    for seed, threads in (("1", "1"), ("2", "2")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *sys.path])
        answer = subprocess.run(
            [sys.executable, "-c", made], capture_output=True, text=True, check=True, env=environment
        )
        assert answer.stdout.strip() == here


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(file_facts, "SETTLED_NS", 0)
    adata = cells().to_anndata()
    adata.layers["columns"] = adata.X.tocsc()
    adata.layers["dense"] = adata.X.toarray().astype(np.float64)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def test_cells_on_disk_are_known_as_the_same_cells_in_memory(path):
    genes, rows = cells().genes[[7, 3, 11]], np.array([40, 3, 300])
    known = set()
    for layer, backed in ((None, False), (None, True), ("columns", False), ("dense", False), ("dense", True)):
        record = cells_file(path, "counts", covariates=("cell_line",), matrix=MatrixOptions(layer=layer, backed=backed))
        assert isinstance(record.cells.X, BackedMatrix) is backed
        few = record.cells.on_genes(genes).subset(rows)
        known.add((record.fingerprint(), record.on_genes(genes).fingerprint(), few.fingerprint()))
    assert len(known) == 1


def test_a_large_file_is_read_once_until_it_changes_and_again_where_that_is_wished(path, monkeypatch):
    reads, read = [], scan.scan
    monkeypatch.setattr(scan, "scan", lambda *given: reads.append(1) or read(*given))

    def known() -> str:
        return cells_file(path, "counts", covariates=("cell_line",), matrix=MatrixOptions(backed=True)).fingerprint()

    before = known()
    assert (known(), len(reads)) == (before, 1)
    with verifying("full"):
        assert (known(), len(reads)) == (before, 2)
    with pytest.raises(InputError, match="data.verify='often': must be cached or full"), verifying("often"):
        pass
    times = path.stat()
    adata = anndata.read_h5ad(path)
    adata.X.data[0] += 1
    adata.write_h5ad(path.with_name("changed.h5ad"))
    path.with_name("changed.h5ad").replace(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copy that keeps times: ctime tells
    assert known() != before
    assert len(reads) == 3


def test_a_file_that_has_just_been_written_is_not_trusted_to_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path / "cache"))
    file = tmp_path / "file"
    file.write_text("one")
    answers = iter(["one", "two"])
    assert remembered(file, "content", lambda: next(answers)) == "one"
    assert remembered(file, "content", lambda: next(answers)) == "two"
