"""Batches of one choice and seed are the same from memory, a file and a prepared folder; read in windows, ahead."""

from __future__ import annotations

import threading
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from torchcell.cells import batch as batches
from torchcell.cells.datamodule import CellSetDataModule, SetOptions
from torchcell.cells.prepare import prepare
from torchcell.cells.simulate import simulate_perturbseq
from torchcell.cells.table import MatrixOptions, cells_file
from torchcell.core.batch import made_ahead
from torchcell.io.errors import InputError

SPLIT = {"method": "unseen_perturbation", "n_folds": 5, "fold": 0, "seed": 0}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    made = simulate_perturbseq(n_genes=40, n_regulators=20, n_doubles=4, n_lines=2, cells_per_condition=37).cells
    adata = made.to_anndata()
    adata = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    adata.write_h5ad(folder / "plain.h5ad")
    adata.write_h5ad(folder / "packed.h5ad", compression="gzip")
    dense = adata.copy()
    dense.X = dense.X.toarray()
    dense.write_h5ad(folder / "dense.h5ad")
    adata.write_zarr(folder / "zarr.zarr")
    prepare(folder / "plain.h5ad", folder / "prepared.zarr", ["perturbation"])
    return {path.stem: path for path in folder.iterdir()}


def module(path: Path, backed: bool, sampling: str, **more) -> CellSetDataModule:
    matrix = MatrixOptions(backed=backed)
    record = cells_file(path, "counts", "control", covariates=("cell_line",), matrix=matrix, name="one")
    return CellSetDataModule(record, SPLIT, sets=SetOptions(size=4), sampling=sampling, batch_size=7, **more)


def everything(data: CellSetDataModule) -> list[torch.Tensor]:
    loader, found = data.train_dataloader(), []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for one in loader:
            found += [one.target, one.input_cells.dense(), one.perturbed.dense(), one.gene, one.ptr, one.group]
            found += [one.input_control.rows(), one.eval_control.rows()]
    return found + [one.input_cells.dense() for one in data.val_dataloader()]


@pytest.mark.parametrize("sampling", ["rows", "blocks"])
def test_every_store_gives_the_same_batches(stores: dict[str, Path], sampling: str, monkeypatch) -> None:
    monkeypatch.setattr(batches, "BLOCK", 12)
    monkeypatch.setattr(batches, "WINDOW", 160)
    expected = everything(module(stores["plain"], False, sampling))
    for name, backed in [(name, True) for name in stores] + [("prepared", False)]:
        monkeypatch.setattr(batches, "BUFFER", 3_000 if name == "packed" else 2**26)  # more and fewer at a time
        found = everything(module(stores[name], backed, sampling))
        assert len(found) == len(expected)
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True)), name


def test_blocks_hold_each_cell_once_and_neighbors_of_either_list(stores: dict[str, Path], monkeypatch) -> None:
    monkeypatch.setattr(batches, "BLOCK", 12)
    data = module(stores["prepared"], True, "blocks")
    train, sets = data.record("train"), data.train_dataloader().packed
    starts = set()
    for epoch in range(3):
        sets.assign_folds(epoch)
        for i in range(len(train)):
            own = sets.condition.numpy() == i
            cells, members = sets.cells[own], train.members(i)
            assert sorted(set(cells.ravel().tolist())) == sorted(members.tolist())
            assert cells.size == 40
            place = np.searchsorted(members, cells)
            for block in np.unique(sets.block[own]):
                taken = np.unique(place[sets.block[own] == block])
                gaps = np.diff(np.r_[taken, taken[0] + len(members)])
                assert (gaps > 1).sum() <= 1, "a stretch of the list, or around its end"
            starts.add(int(place[0].min()))
            assert np.isin(sets.controls[own], train.input_cells(i)).all()
            assert all(len(set(row)) == 4 for row in sets.controls[own].tolist())
    assert len(starts) > 3


def test_blocks_are_shuffled_by_epoch_and_every_set_is_given_by_one_process(stores: dict[str, Path], monkeypatch):
    monkeypatch.setattr(batches, "BLOCK", 12)
    monkeypatch.setattr(batches, "WINDOW", 160)
    sets = module(stores["plain"], False, "blocks").train_dataloader().packed
    for world in (1, 2):
        orders = [batches.SetOrder(sets, True, 0, rank, world) for rank in range(world)]
        drawn = []
        for epoch in range(2):
            for order in orders:
                order.set_epoch(epoch)
            parts = [order.draw().tolist() for order in orders]
            assert set().union(*parts) == set(range(len(sets)))
            assert [len(part) for part in parts] == [len(order) for order in orders]
            drawn.append(parts[0])
        assert drawn[0] != drawn[1]
    first = np.unique(sets.block[drawn[0][:20]])
    assert len(first) < 15, "20 sets of a window come from few blocks"


def test_what_sampling_can_be_is_said(stores: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="data.sampling='shuffled': must be rows or blocks"):
        module(stores["plain"], False, "shuffled")


def test_reading_ahead_gives_the_same_raises_the_same_and_ends(monkeypatch) -> None:
    assert list(made_ahead(iter(range(5)))) == [0, 1, 2, 3, 4]

    def fails():
        yield 1
        raise InputError("the file is gone")

    read = made_ahead(fails())
    assert next(read) == 1
    with pytest.raises(InputError, match="the file is gone"):
        next(read)
    left = made_ahead(iter(range(100)))
    next(left)
    left.close()
    assert not [one for one in threading.enumerate() if one.name == "torchcell-read-ahead"]


def test_sums_of_a_prepared_folder_are_those_of_the_file(stores: dict[str, Path]) -> None:
    one, other = (module(stores[name], True, "rows").record_whole for name in ("plain", "prepared"))
    for name in ("target", "input_control", "eval_control"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    values = anndata.read_h5ad(stores["plain"]).X.toarray().astype(np.float64)
    shown = np.log1p(values / values.sum(1, keepdims=True) * 1e4)
    for i in (0, 7):
        np.testing.assert_allclose(one.target[i], shown[one.members(i)].mean(0), rtol=1e-5)
        np.testing.assert_allclose(one.moments(i)[1], shown[one.members(i)].var(0), rtol=1e-4, atol=1e-6)
