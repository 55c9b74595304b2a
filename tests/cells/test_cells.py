from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import CellExpression
from torchcell.cells.simulate import SimulatedCells, simulate_cells
from torchcell.io.errors import InputError

PAPALEXI = "perturbseq/papalexi2021.h5ad"


@pytest.fixture(scope="module")
def simulated() -> SimulatedCells:
    return simulate_cells()


@pytest.fixture
def cells(simulated: SimulatedCells) -> CellExpression:
    return simulated.cells


def with_value(cells: CellExpression, value: float, dense: bool) -> CellExpression:
    X = cells.X.toarray()
    X[4, 7] = value
    return replace(cells, X=X if dense else sparse.csr_matrix(X))


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(
    ("value", "what"),
    [(-1.0, "negative values"), (0.5, "values that are no integers"), (np.nan, "values that are not finite")],
)
def test_bad_counts_are_refused_and_the_cell_named(cells: CellExpression, value: float, what: str, dense: bool) -> None:
    with pytest.raises(InputError, match=f"with {what}.*: 'cell00004 [(]G0008: {value:g}"):
        with_value(cells, value, dense).validate()


def test_fractions_are_fine_once_declared_log_normalized(cells: CellExpression) -> None:
    assert replace(cells.lognorm(), counts=None).validate().scale == "lognorm"
    with pytest.raises(InputError, match="scale is 'log'; say counts or lognorm"):
        replace(cells, scale="log").validate()


def test_counts_are_not_taken_for_log_normalized_values(cells: CellExpression) -> None:
    with pytest.raises(InputError, match="declared log-normalized, but all values are integers: declare scale=counts"):
        replace(cells, scale="lognorm").validate()
    with pytest.raises(
        InputError, match="neither counts nor logs .highest 500, cell00004 .G0008: 500.*declare scale=lognorm"
    ):
        with_value(cells.lognorm(), 500, dense=False).validate()


def test_genes_without_names_are_refused_and_their_order_is_free(cells: CellExpression) -> None:
    with pytest.raises(InputError, match="the genes are numbered, not named: '0', '1'.*put gene symbols in var_names"):
        replace(cells, genes=np.arange(len(cells.genes)).astype(str)).validate()
    genes = cells.genes.copy()
    genes[3] = ""
    with pytest.raises(InputError, match="1 gene.s. have no name"):
        replace(cells, genes=genes).validate()
    backwards = cells.on_genes(cells.genes[::-1])
    np.testing.assert_array_equal(backwards.on_genes(cells.genes).validate().target, cells.target)
    with pytest.raises(InputError, match="1 of 2 genes are not measured: 'G9999'"):
        cells.on_genes(["G0001", "G9999"])


def test_counts_stay_beside_what_is_log_normalized(cells: CellExpression) -> None:
    made = cells.lognorm(500)
    assert made.scale == "lognorm"
    assert made.X.nnz == cells.X.nnz
    np.testing.assert_allclose(np.expm1(made.target).sum(1), 500, rtol=1e-4)
    np.testing.assert_array_equal(
        made.subset([3, 5]).on_genes(["G0002"]).counts.toarray(), cells.X[[3, 5]][:, [1]].toarray()
    )
    np.testing.assert_allclose(replace(cells, X=cells.target).lognorm(500).X, made.target, rtol=1e-6)
    assert made.lognorm(7) is made
    with pytest.raises(InputError, match="must be positive"):
        cells.lognorm(0)


def test_missing_controls_labels_and_covariates_are_refused(cells: CellExpression) -> None:
    with pytest.raises(InputError, match="no control cells; the labels are 'G0001'"):
        cells.subset(~cells.is_control).validate()
    labels = cells.perturbation.copy()
    labels[3] = ""
    with pytest.raises(InputError, match="no perturbation label: 'cell00003'"):
        replace(cells, perturbation=labels).validate()
    line = cells.covariates["cell_line"].copy()
    line[5] = ""
    with pytest.raises(InputError, match="no cell_line: 'cell00005'"):
        replace(cells, covariates={"cell_line": line}).validate()


def test_repeated_names_and_wrong_shapes_are_refused(cells: CellExpression) -> None:
    genes = cells.genes.copy()
    genes[1] = genes[0]
    with pytest.raises(InputError, match="genes used twice: 'G0001'"):
        replace(cells, genes=genes).validate()
    with pytest.raises(InputError, match="sample ids used twice"):
        replace(cells, sample_id=np.full(len(cells), "cell")).validate()
    with pytest.raises(InputError, match="X has shape"):
        replace(cells, X=cells.X[1:]).validate()
    with pytest.raises(InputError, match="batch has shape"):
        replace(cells, covariates={"batch": cells.covariates["batch"][1:]}).validate()


def test_subset_keeps_order_and_sparsity(cells: CellExpression) -> None:
    index = np.array([500, 2, 130])
    part = cells.subset(index)
    assert sparse.issparse(part.X)
    np.testing.assert_array_equal(part.target, cells.X.toarray()[index])
    assert part.target.dtype == np.float32
    assert part.sample_id.tolist() == ["cell00500", "cell00002", "cell00130"]
    assert part.covariates["batch"].tolist() == cells.covariates["batch"][index].tolist()
    assert len(cells.subset(cells.is_control)) == cells.is_control.sum()


@pytest.mark.parametrize("dense", [True, False])
def test_h5ad_round_trip_keeps_every_value(cells: CellExpression, tmp_path: Path, dense: bool) -> None:
    import anndata

    cells = replace(cells, X=cells.X.toarray()) if dense else cells
    cells.to_anndata().write_h5ad(tmp_path / "cells.h5ad")
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad")
    back = CellExpression.from_anndata(
        adata, adata.uns["scale"], covariates=("cell_line", "batch"), name=cells.name
    ).validate()
    assert sparse.issparse(back.X) is not dense
    np.testing.assert_array_equal(back.target, cells.target)
    for name in ("perturbation", "is_control", "genes", "sample_id", "scale", "name"):
        np.testing.assert_array_equal(getattr(back, name), getattr(cells, name), err_msg=name)
    for name, values in cells.covariates.items():
        np.testing.assert_array_equal(back.covariates[name], values)
    by_label = CellExpression.from_anndata(adata, "counts", control="control")
    np.testing.assert_array_equal(by_label.is_control, cells.is_control)


def test_reading_names_what_is_missing(cells: CellExpression) -> None:
    adata = cells.to_anndata()
    with pytest.raises(InputError, match=r"no column 'cell_lines'; the nearest are .'cell_line'"):
        CellExpression.from_anndata(adata, "counts", covariates=("cell_lines",))
    with pytest.raises(InputError, match="nothing reads columns 'line'"):
        CellExpression.from_anndata(adata, "counts", columns={"line": "cell_line"})
    with pytest.raises(InputError, match="no layer 'raw'"):
        CellExpression.from_anndata(adata, "counts", layer="raw")
    with pytest.raises(InputError, match="no control cells"):
        CellExpression.from_anndata(adata, "counts", control="non-targeting").validate()
    flag = pd.array(cells.is_control, dtype="boolean")
    adata.obs["is_control"] = flag
    found = CellExpression.from_anndata(adata, "counts")
    np.testing.assert_array_equal(found.is_control, cells.is_control)
    flag[3] = pd.NA
    adata.obs["is_control"] = flag
    with pytest.raises(InputError, match="is_control is missing in 1 row.s.; it must be true or false"):
        CellExpression.from_anndata(adata, "counts")
    adata.obs["is_control"] = flag.astype(object)
    with pytest.raises(InputError, match="is_control is missing in 1 row.s."):
        CellExpression.from_anndata(adata, "counts")
    line = pd.array(cells.covariates["cell_line"], dtype="string")
    line[5] = pd.NA
    adata.obs["cell_line"], adata.obs["is_control"] = line, cells.is_control
    with pytest.raises(InputError, match="no cell_line: 'cell00005'"):
        CellExpression.from_anndata(adata, "counts", covariates=("cell_line",)).validate()
    adata.obs["is_control"] = np.where(cells.is_control, "yes", "no")
    with pytest.raises(InputError, match="must be true or false"):
        CellExpression.from_anndata(adata, "counts")


def test_a_control_beside_a_gene_is_no_gene(cells: CellExpression) -> None:
    """``KLF1+ctrl`` made ``ctrl`` a gene that all singles share: unseen_perturbation left out 34 of 48 conditions."""
    adata = cells.to_anndata()
    label = adata.obs["perturbation"].to_numpy().astype(str)
    wanted = np.where(cells.is_control, "ctrl", label)
    beside = np.array(
        [name if "+" in name else f"{name}+ctrl" if i % 2 else f"ctrl+{name}" for i, name in enumerate(label)]
    )
    adata.obs["perturbation"] = np.where(cells.is_control, "ctrl", beside)
    twice = np.flatnonzero(cells.is_control)[0]
    adata.obs.iloc[twice, adata.obs.columns.get_loc("perturbation")] = "ctrl+ctrl"
    for control in ("ctrl", None):
        found = CellExpression.from_anndata(adata, "counts", control=control)
        np.testing.assert_array_equal(np.delete(found.perturbation, twice), np.delete(wanted, twice))
        np.testing.assert_array_equal(found.is_control, cells.is_control)
        assert found.dropped == {"labels that name a control beside a gene": 12}
    assert "ctrl" not in {gene for genes in Pseudobulk.from_cells(found).targets for gene in genes}
    adata.obs["perturbation"] = np.where(cells.is_control, "G0001", label)  # a gene's own name flagged as control
    assert CellExpression.from_anndata(adata, "counts").perturbation.tolist() == adata.obs["perturbation"].tolist()


def test_counts_recover_the_planted_changes(simulated: SimulatedCells) -> None:
    cells, counts = simulated.cells, simulated.cells.target
    line = cells.covariates["cell_line"]
    change = []
    for label in simulated.labels:
        per_line = [
            np.log(counts[(cells.perturbation == label) & (line == name)].mean(0) + 0.01)
            - np.log(counts[cells.is_control & (line == name)].mean(0) + 0.01)
            for name in np.unique(line)
        ]
        change.append(np.mean(per_line, axis=0))
    error = np.array(change) - simulated.effect
    assert np.abs(error).mean() < 0.15
    assert np.corrcoef(np.ravel(change), simulated.effect.ravel())[0, 1] > 0.95
    assert simulated.labels.tolist()[6:] == ["G0001+G0002", "G0002+G0003"]
    np.testing.assert_array_equal(simulated.effect[6], simulated.effect[0] + simulated.effect[1])


def test_log_normalized_cells_have_the_declared_library_size() -> None:
    cells = simulate_cells(scale="lognorm").cells
    np.testing.assert_allclose(np.expm1(cells.target).sum(1), 10_000, rtol=1e-3)


@pytest.mark.mirror
def test_papalexi_reads_as_counts_with_its_controls(mirror: Path) -> None:
    import anndata

    adata = anndata.read_h5ad(mirror / PAPALEXI)
    cells = CellExpression.from_anndata(
        adata, "counts", {"batch": "bio_rep"}, control="control", covariates=("batch",), name="papalexi2021"
    ).validate()
    assert cells.X.shape == (20_729, 299)
    confident = cells.subset(adata.obs["confident"].to_numpy())
    assert len(confident) == 16_192
    assert confident.is_control.sum() == 1_923
