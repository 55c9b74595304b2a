"""Which genes a perturbation changes: the same p values as SciPy, and only one half of the controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from torchcell.cells.metrics import rank_sum, significant_genes
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.simulate import SimulatedCells, simulate_cells


@pytest.fixture(scope="module")
def simulated() -> SimulatedCells:
    return simulate_cells(n_genes=60, cells_per_condition=60, scale="lognorm")


@pytest.fixture(scope="module")
def record(simulated: SimulatedCells) -> Pseudobulk:
    return Pseudobulk.from_cells(simulated.cells, covariates=("cell_line",)).validate()


def test_p_values_are_those_of_scipy_with_ties_and_genes_that_never_vary(record: Pseudobulk) -> None:
    X = record.cells.X.toarray().round(1)  # ties besides the zeros
    X[:, 5], X[:, 6] = 0, 1.5
    record = replace(record, cells=replace(record.cells, X=X))
    found = rank_sum(record)
    for i in range(len(record)):
        x, y = X[record.members(i)].astype(float), X[record.eval_cells(i)].astype(float)
        expected = stats.mannwhitneyu(x, y, method="asymptotic").pvalue
        np.testing.assert_allclose(found[i], np.where(np.isnan(expected), 1, expected), rtol=1e-12)
    assert (found[:, 5:7] == 1).all()


def test_sparse_and_dense_cells_and_blocks_of_genes_agree(record: Pseudobulk, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rank_sum(record)
    solid = replace(record, cells=replace(record.cells, X=record.cells.X.toarray()))
    np.testing.assert_array_equal(rank_sum(solid), expected)
    monkeypatch.setattr("torchcell.cells.metrics.GENES", 7)
    np.testing.assert_array_equal(rank_sum(record), expected)


def test_planted_changes_are_found_and_few_others(simulated: SimulatedCells, record: Pseudobulk) -> None:
    found = significant_genes(record)
    row = {label: i for i, label in enumerate(simulated.labels.tolist())}
    planted = np.abs(simulated.effect[[row[label] for label in record.perturbation.tolist()]]) > 0
    assert found.shape == planted.shape
    assert found[planted].mean() > 0.8
    twin = significant_genes(record, level=0.001)
    assert (found | ~twin).all()


def test_controls_against_controls_have_next_to_no_significant_genes(record: Pseudobulk) -> None:
    """The other half of the controls stands in for a perturbation."""
    cells = [record.input_cells(i) for i in range(len(record))]
    ptr, member = np.cumsum([0, *map(len, cells)]), np.concatenate(cells)
    fake = replace(record, ptr=ptr, member=member)
    assert significant_genes(fake).mean() < 0.005


def test_the_other_half_of_the_controls_is_not_looked_at(record: Pseudobulk) -> None:
    X = record.cells.X.toarray()
    X[record.cells.is_control & ~record.control_half] = 7.0
    spoilt = replace(record, cells=replace(record.cells, X=X))
    np.testing.assert_array_equal(rank_sum(spoilt), rank_sum(record))


def test_the_order_of_conditions_and_genes_changes_nothing(record: Pseudobulk) -> None:
    rng = np.random.default_rng(0)
    rows, genes = rng.permutation(len(record)), rng.permutation(len(record.genes))
    turned = record.subset(rows).on_genes(record.genes[genes])
    np.testing.assert_allclose(rank_sum(turned), rank_sum(record)[rows][:, genes], rtol=1e-12)
