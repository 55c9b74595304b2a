"""Data that changed behind an unchanged config: no cache, run or table may pass the old for the new."""

from __future__ import annotations

import os
from pathlib import Path

import anndata
import numpy as np
import pytest
from omegaconf import OmegaConf

from torchcell.baselines.cells_means import PerturbedMean
from torchcell.data.cells_file import cells_file
from torchcell.data.simulate_cells import simulate_cells
from torchcell.datamodules.cell_sets import CellSetDataModule
from torchcell.run.baselines import baseline_predictions

SPLIT = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


def exchange_counts(path: Path) -> None:
    """Other counts in the same file: same path, size of the matrix, names and time of change."""
    stat, adata = path.stat(), anndata.read_h5ad(path)
    adata.X.data[:] = np.random.default_rng(1).permutation(adata.X.data)
    other = path.with_name("other.h5ad")
    adata.write_h5ad(other)
    other.replace(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("backed", [False, True])
def test_a_table_never_shows_the_baseline_of_a_file_that_was_exchanged(tmp_path, monkeypatch, backed):
    """The cache knew a sparse matrix by how it is printed and one on disk by its path: the second run showed the first
    file's perturbed_mean beside its own measured values.
    """
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path / "cache"))
    path, cells = tmp_path / "cells.h5ad", simulate_cells(n_singles=12, n_doubles=0).cells
    cells.to_anndata().write_h5ad(path)
    config = {"perturbed_mean": OmegaConf.create({"_target_": "torchcell.baselines.cells_means.PerturbedMean"})}

    def tabled() -> tuple[np.ndarray, np.ndarray]:
        data = CellSetDataModule(cells_file(path, "counts", covariates=("cell_line",), backed=backed), SPLIT)
        fitted = PerturbedMean().fit(data.record("train"), data.record("val"), None)
        shown = baseline_predictions(data, config, "test")[""]["perturbed_mean"]
        return shown, np.asarray(fitted.predict(data.record("test").blind()), dtype=np.float32)

    first, expected = tabled()
    np.testing.assert_array_equal(first, expected)
    exchange_counts(path)
    second, expected = tabled()
    np.testing.assert_array_equal(second, expected)
    assert np.abs(second - first).max() > 0.1
    assert len(list((tmp_path / "cache" / "baselines").glob("*.npz"))) == 2
