"""Several files are one data set: the same cells as one file that holds them all."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest

from torchcell.cells.joined import JoinedMatrix
from torchcell.cells.prepare import prepare
from torchcell.cells.simulate import simulate_cells
from torchcell.cells.table import ConditionOptions, MatrixOptions, cells_file
from torchcell.io.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file a cell line, one of them prepared, with other column names and genes in another order; and all in one."""
    path, adata = tmp_path_factory.mktemp("cells"), simulate_cells().cells.to_anndata()
    one, two = (adata[adata.obs["cell_line"] == line].copy() for line in ("LINE1", "LINE2"))
    whole = anndata.concat([one, two])[:, adata.var_names[1:-1]]
    whole.obs_names = [*("one:" + one.obs_names), *("two:" + two.obs_names)]
    whole.write_h5ad(path / "whole.h5ad")
    one[:, adata.var_names[:-1]].copy().write_h5ad(path / "one.h5ad")
    two = two[:, adata.var_names[:0:-1]].copy()
    two.obs = two.obs.rename(columns={"perturbation": "gene"})
    two.write_h5ad(path / "two.h5ad")
    prepare(path / "two.h5ad", path / "sorted" / "two.zarr", ["gene"])
    return path


COLUMNS = [{}, {"perturbation": "gene"}]


@pytest.mark.parametrize("second", ["two.h5ad", "sorted/two.zarr"])
@pytest.mark.parametrize("backed", [False, True])
def test_files_are_read_as_one_that_holds_them_all(folder: Path, second: str, backed: bool) -> None:
    matrix = MatrixOptions(backed=backed)
    whole = cells_file(folder / "whole.h5ad", "counts", "control", covariates=("cell_line",), matrix=matrix)
    files = [folder / "one.h5ad", folder / second]
    found = cells_file(files, "counts", "control", COLUMNS, ("file",), matrix, name="several").validate()
    assert isinstance(found.cells.X, JoinedMatrix) is backed
    assert found.dropped == {"genes that not all files have": 2}
    assert found.genes.tolist() == whole.genes.tolist()
    assert found.group.tolist() == ["one" if name == "LINE1" else "two" for name in whole.group]
    np.testing.assert_allclose(found.target, whole.target, rtol=1e-6)
    ids = found.cells.sample_id.tolist()
    at = np.array([ids.index(name) for name in whole.cells.sample_id.tolist()])
    np.testing.assert_allclose(found.cells.subset(at).target, whole.cells.target, rtol=1e-6)
    genes = whole.genes[[5, 2]]
    np.testing.assert_allclose(found.on_genes(genes).target, whole.on_genes(genes).target, rtol=1e-6)
    few = np.array([3, 700, 3, 12])
    np.testing.assert_array_equal(found.cells.subset(few).target, found.cells.target[few])
    if second == "two.h5ad":
        assert found.cells.counts.fingerprints()[0] == whole.cells.counts.fingerprints()[0]


def test_a_pattern_names_files_and_some_cells_can_be_taken(folder: Path) -> None:
    files, keep = [folder / "one.h5ad", str(folder / "tw?.h5ad")], ConditionOptions(max_cells=440)
    found = cells_file(files, "counts", "control", COLUMNS, ("cell_line",), conditions=keep)
    assert len(found.cells) == 440
    assert set(found.group.tolist()) == {"LINE1", "LINE2"}


def test_what_does_not_fit_together_is_named(folder: Path, tmp_path: Path) -> None:
    one, two = folder / "one.h5ad", folder / "two.h5ad"
    with pytest.raises(InputError, match=r"no file fits .*plates/\*.h5ad"):
        cells_file(str(folder / "plates" / "*.h5ad"), "counts")
    with pytest.raises(InputError, match="files given twice: .*one.h5ad"):
        cells_file([one, one], "counts")
    with pytest.raises(InputError, match="3 maps of columns for 2 files"):
        cells_file([one, two], "counts", "control", [{}, {}, {}])
    with pytest.raises(InputError, match="no column 'perturbation'; the nearest are"):
        cells_file([one, two], "counts", "control")
    other = anndata.read_h5ad(one)
    other.var_names = [f"ENSG{i:05d}" for i in range(other.n_vars)]
    other.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(
        InputError, match="0 of .* genes in common: one has 'G0001'.*other has 'ENSG00000'.*gene_column"
    ):
        cells_file([one, tmp_path / "other.h5ad"], "counts", "control")
    (tmp_path / "one.h5ad").write_bytes(one.read_bytes())
    with pytest.raises(InputError, match="files of one name: 'one'"):
        cells_file([one, tmp_path / "one.h5ad"], "counts", "control")
