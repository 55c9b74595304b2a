"""Cells of a batch: dense where they are read, whatever is narrowed, split, picked or moved before."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

from torchcell.cells.backed import BackedMatrix
from torchcell.cells.batch import CellRows, DenseRows, SparseRows

ROWS = np.random.default_rng(1).integers(0, 30, (6, 5))
"""Six sets of five cells, some of them twice."""
GENES = torch.tensor([7, 2, 11, 0])


@pytest.fixture(scope="module")
def matrix() -> sparse.csr_matrix:
    """30 cells over 12 genes, a third above zero; cells 3 and 29 have nothing."""
    made = sparse.random(30, 12, 0.35, format="lil", dtype=np.float32, random_state=np.random.default_rng(0))
    made[[3, 29]] = 0
    return made.tocsr()


@pytest.fixture(params=["csr", "csc", "csr_array", "float64", "dense", "backed", "device"])
def cells(request, matrix, tmp_path: Path, monkeypatch) -> CellRows:
    if request.param == "device":  # what runs on a GPU, on the processor
        monkeypatch.setattr(SparseRows, "_scattered", _on_device)
    kinds = {
        "csc": lambda: matrix.tocsc(),
        "csr_array": lambda: sparse.csr_array(matrix),
        "float64": lambda: matrix.astype(np.float64),
        "dense": lambda: matrix.toarray(),
        "backed": lambda: _backed(matrix, tmp_path / "cells.h5ad"),
    }
    found = CellRows.of(kinds.get(request.param, lambda: matrix)(), ROWS)
    assert isinstance(found, DenseRows if request.param == "dense" else SparseRows)
    return found


def _backed(matrix: sparse.csr_matrix, path: Path) -> BackedMatrix:
    anndata.AnnData(matrix).write_h5ad(path)
    return BackedMatrix.open(path)


def _on_device(self: SparseRows, columns: torch.Tensor, width: int) -> torch.Tensor:
    return self._scattered_on_device(columns, width)


@pytest.fixture
def wanted(matrix) -> torch.Tensor:
    return torch.from_numpy(matrix.toarray()[ROWS])


def test_dense_is_what_the_matrix_says_over_all_genes_and_over_some(cells, wanted):
    assert cells.shape == (6, 5, 12)
    assert cells.dense().dtype == torch.float32
    assert torch.equal(cells.dense(), wanted)
    assert torch.equal(cells.dense(GENES), wanted[:, :, GENES])
    assert cells.dense(GENES[:0]).shape == (6, 5, 0)


def test_parts_of_sets_and_of_cells_are_the_same_cells(cells, wanted):
    part = cells.narrow(2, 5)
    assert part.shape == (3, 5, 12)
    assert torch.equal(part.dense(GENES), wanted[2:5][:, :, GENES])
    assert torch.equal(part.narrow(1, 3).dense(), wanted[3:5])
    assert torch.equal(cells.narrow(4, 99).dense(), wanted[4:])
    for size in (1, 2, 5, 9):
        for whole, values in ((cells, wanted), (part, wanted[2:5])):
            pieces = [each.dense() for each in whole.split(size)]
            assert [each.shape[1] for each in pieces] == [len(each) for each in torch.arange(5).split(size)]
            assert torch.equal(torch.cat(pieces, 1), values)


def test_the_mean_is_that_of_the_dense_cells(cells, wanted):
    torch.testing.assert_close(cells.mean(), wanted.mean(1), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(cells.narrow(1, 4).mean(), wanted[1:4].mean(1), atol=1e-6, rtol=1e-6)


def test_a_part_shares_the_values_and_weighs_less(cells):
    part = cells.narrow(2, 5)
    assert part.values.untyped_storage().data_ptr() == cells.values.untyped_storage().data_ptr()
    assert part.nbytes < cells.nbytes


def test_another_device_gets_all_tensors(cells):
    away = cells.to("meta")
    assert type(away) is type(cells)
    assert away.shape == cells.shape
    held = [value for value in vars(away).values() if isinstance(value, torch.Tensor)]
    assert [each.device.type for each in held] == ["meta"] * len(held)


def test_values_that_stand_twice_in_a_cell_are_added_up():
    """``toarray`` of scipy does so too."""
    twice = sparse.csr_matrix((np.ones(3, np.float32), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 3))
    cells = CellRows.of(twice, np.array([[0, 1]]))
    assert cells.dense().tolist() == [[[0, 2, 0], [1, 0, 0]]]
    assert cells.mean().tolist() == [[0.5, 1, 0]]


def test_sets_without_cells_stay_so():
    cells = CellRows.none(4, 12)
    assert cells.narrow(1, 3).dense(GENES).shape == (2, 0, 4)
    assert cells.nbytes == 0
