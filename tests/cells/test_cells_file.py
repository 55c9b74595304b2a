"""A file of cells gives the same conditions from memory, from disk and from zarr; a damaged one says so."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
import zarr
from scipy import sparse

from torchcell.cells.backed import BackedMatrix
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import CellExpression
from torchcell.cells.simulate import simulate_cells
from torchcell.cells.table import ConditionOptions, MatrixOptions, cells_file
from torchcell.io.errors import InputError

LINE = ("cell_line",)


@pytest.fixture(scope="module")
def cells() -> CellExpression:
    return simulate_cells().cells


@pytest.fixture(scope="module")
def path(cells: CellExpression, tmp_path_factory: pytest.TempPathFactory) -> Path:
    adata = cells.to_anndata()
    adata.layers["dense"] = adata.X.toarray()
    adata.var["symbol"] = [f"SYM{i}" for i in range(adata.n_vars)]
    folder = tmp_path_factory.mktemp("cells")
    adata.write_h5ad(folder / "cells.h5ad")
    adata.write_zarr(folder / "cells.zarr")
    return folder / "cells.h5ad"


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("layer", [None, "dense"])
@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_every_way_to_read_gives_the_same_conditions(
    cells: CellExpression, path: Path, ending: str, layer: str | None, backed: bool
) -> None:
    expected = Pseudobulk.from_cells(cells.lognorm(), LINE)
    found = cells_file(
        path.with_suffix(ending), "counts", covariates=LINE, matrix=MatrixOptions(layer=layer, backed=backed)
    ).validate()
    assert isinstance(found.cells.X, BackedMatrix) is backed
    assert sparse.issparse(found.cells.X[:2]) is (layer is None)
    np.testing.assert_array_equal(found.sample_id, expected.sample_id)
    np.testing.assert_allclose(found.target, expected.target, atol=1e-5)
    np.testing.assert_allclose(found.eval_control, expected.eval_control, atol=1e-5)
    genes = cells.genes[[7, 3]]
    np.testing.assert_allclose(found.on_genes(genes).target, expected.on_genes(genes).target, atol=1e-5)
    rows = np.array([40, 3, 3, 700])
    np.testing.assert_allclose(found.cells.subset(rows).target, cells.lognorm().target[rows], atol=1e-5)
    np.testing.assert_allclose(found.blind().eval_control, expected.eval_control, atol=1e-5)


def test_some_cells_are_read_by_seed_and_share(path: Path, cells: CellExpression) -> None:
    few = cells_file(path, "counts", covariates=LINE, conditions=ConditionOptions(max_cells=440))
    assert len(few.cells) == 440
    assert len(few) == 16
    assert set(few.sizes.tolist()) == {20}
    again = cells_file(
        path, "counts", covariates=LINE, matrix=MatrixOptions(backed=True), conditions=ConditionOptions(max_cells=440)
    )
    np.testing.assert_array_equal(few.cells.sample_id, again.cells.sample_id)
    other = cells_file(path, "counts", covariates=LINE, conditions=ConditionOptions(max_cells=440, seed=1))
    assert set(other.cells.sample_id) != set(few.cells.sample_id)
    with pytest.raises(InputError, match="max_cells=0"):
        cells_file(path, "counts", conditions=ConditionOptions(max_cells=0))


def test_conditions_that_max_cells_thins_out_blame_max_cells(path: Path) -> None:
    few = r"max_cells=200 leaves fewer than min_cells=10 cells of 16 condition.s.: 'G0001\+G0002\|LINE1 \(9 of 40\)'"
    with pytest.raises(InputError, match=few + ".*set max_cells higher, or min_cells lower"):
        cells_file(path, "counts", covariates=LINE, conditions=ConditionOptions(max_cells=200))
    found = cells_file(path, "counts", covariates=LINE, conditions=ConditionOptions(max_cells=210, few_cells="drop"))
    told = "conditions of which max_cells=210 leaves fewer than 10 cells"
    assert found.dropped == {told: 16 - len(found)}
    assert 0 < len(found) < 16


def test_gene_symbols_may_stand_in_a_column(path: Path) -> None:
    assert cells_file(path, "counts", matrix=MatrixOptions(gene_column="symbol")).genes[:2].tolist() == ["SYM0", "SYM1"]
    with pytest.raises(InputError, match="no column 'symbols'; the nearest are .'symbol'"):
        cells_file(path, "counts", matrix=MatrixOptions(gene_column="symbols"))


def test_perturbed_genes_of_old_names_are_found_by_a_table(path: Path, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("alias,gene\nSYM0;G0001,G0001\n")
    found = cells_file(path, "counts", matrix=MatrixOptions(gene_column="symbol", aliases=tmp_path / "names.csv"))
    assert {"SYM0", "G0002+SYM0", "G0002"} <= set(found.perturbation.tolist())
    assert "G0001" not in found.perturbation
    assert found.dropped == {"labels that gave way to the name of the measured gene": 2}
    with pytest.raises(InputError, match="no table of gene names"):
        cells_file(path, "counts", matrix=MatrixOptions(aliases=tmp_path / "none.csv"))


def test_what_the_values_are_is_declared_and_checked(path: Path) -> None:
    with pytest.raises(InputError, match="all values are integers: declare scale=counts"):
        cells_file(path, "lognorm")
    with pytest.raises(InputError, match="scale is 'raw'; say counts or lognorm"):
        cells_file(path, "raw")  # type: ignore[arg-type]


def test_a_truncated_file_and_no_file_are_one_clear_error(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for share in (0.0, 0.3, 0.9):
        (tmp_path / f"cut{share}.h5ad").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match="cut.*(is it whole|copy it again)"):
            cells_file(tmp_path / f"cut{share}.h5ad", "counts")
    with pytest.raises(InputError, match="no such file"):
        cells_file(tmp_path / "none.h5ad", "counts")
    (tmp_path / "table.h5ad").write_text("cell,gene\n")
    with pytest.raises(InputError, match="can't be read as HDF5"):
        cells_file(tmp_path / "table.h5ad", "counts")


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize(("layer", "part"), [(None, "X/data"), (None, "X/indices"), ("dense", "layers/dense")])
def test_a_zarr_copied_in_part_is_refused(
    cells: CellExpression, tmp_path: Path, layer: str | None, part: str, backed: bool
) -> None:
    """A chunk that is not there reads as zeros, which are fine values of a cell."""
    adata = cells.to_anndata()
    adata.layers["dense"] = adata.X.toarray()
    adata.write_zarr(tmp_path / "cells.zarr", chunks=(100, 40))
    cells_file(tmp_path / "cells.zarr", "counts", matrix=MatrixOptions(layer=layer, backed=backed))
    chunks = [each for each in (tmp_path / "cells.zarr" / part).iterdir() if each.name[0].isdigit()]
    sorted(chunks)[-1].unlink()
    told = f"lacks 1 of the {len(chunks)} chunk.s. of {part}, which would read as zeros; copy it again"
    with pytest.raises(InputError, match=told):
        cells_file(tmp_path / "cells.zarr", "counts", matrix=MatrixOptions(layer=layer, backed=backed))


def test_a_shard_that_was_not_copied_is_refused(tmp_path: Path) -> None:
    """A shard is one file of several chunks, and the last one reaches beyond the matrix."""
    root = zarr.open_group(tmp_path / "cells.zarr", mode="w", zarr_format=3)
    made = root.create_array("X", shape=(50, 6), chunks=(5, 3), shards=(20, 6), dtype="f4")
    made[:] = 1.0
    assert BackedMatrix.open(tmp_path / "cells.zarr").shape == (50, 6)
    (tmp_path / "cells.zarr" / "X" / "c" / "1" / "0").unlink()
    with pytest.raises(InputError, match="lacks 1 of the 3 chunk.s. of X, which would read as zeros"):
        BackedMatrix.open(tmp_path / "cells.zarr")


def test_missing_layers_columns_and_controls_are_named(path: Path) -> None:
    with pytest.raises(InputError, match="holds no layer 'raw'; its layers are 'dense'"):
        cells_file(path, "counts", matrix=MatrixOptions(layer="raw"))
    with pytest.raises(InputError, match="no column 'gene_name'"):
        cells_file(path, "counts", columns={"perturbation": "gene_name"})
    with pytest.raises(InputError, match="no control cells; the labels are"):
        cells_file(path, "counts", control="NT")


def test_repeated_genes_and_numbered_genes_are_refused(cells: CellExpression, tmp_path: Path) -> None:
    adata = cells.to_anndata()
    adata.var_names = ["G1", *adata.var_names[1:-1], "G1"]
    adata.write_h5ad(tmp_path / "twice.h5ad")
    with pytest.raises(InputError, match="genes used twice: 'G1'"):
        cells_file(tmp_path / "twice.h5ad", "counts")
    plain = anndata.AnnData(cells.X, obs=cells.to_anndata().obs)
    plain.write_h5ad(tmp_path / "numbered.h5ad")
    with pytest.raises(InputError, match="the genes are numbered, not named"):
        cells_file(tmp_path / "numbered.h5ad", "counts")


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_cells_stored_by_columns_are_turned_in_memory_and_refused_on_disk(
    cells: CellExpression, tmp_path: Path, ending: str
) -> None:
    adata, path = cells.to_anndata(), tmp_path / f"turned.{ending}"
    adata.X = sparse.csc_matrix(cells.X)
    getattr(adata, f"write_{ending}")(path)
    found = cells_file(path, "counts", covariates=LINE, conditions=ConditionOptions(max_cells=440))
    assert found.cells.X.format == "csr"
    at = [cells.sample_id.tolist().index(name) for name in found.cells.sample_id[:50]]
    np.testing.assert_allclose(found.cells.target[:50], cells.lognorm().target[at], atol=1e-5)
    with pytest.raises(InputError, match=r"X is stored by columns \(csc\).*backed=false.*adata.X = adata.X.tocsr\(\)"):
        cells_file(path, "counts", matrix=MatrixOptions(backed=True))
