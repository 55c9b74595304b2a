"""The files for ``cell-eval``, and our scores beside those of the package."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from torchcell.cells.metrics import (
    CONTROL,
    PERTURBATION,
    CellsContext,
    cell_eval_pair,
    des,
    own_columns,
    pds,
    pds_cosine,
    significant_genes,
    write_cell_eval,
)
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.simulate import simulate_cells
from torchcell.evaluation.metrics import Profiles, mae_over_genes, mse_over_genes, pearson_delta
from torchcell.io.errors import InputError

CONTROL_CELLS = 4


@pytest.fixture(scope="module")
def record() -> Pseudobulk:
    cells = simulate_cells(n_singles=12, n_doubles=3, n_genes=80, cell_lines=("LINE1",), scale="lognorm").cells
    return Pseudobulk.from_cells(cells)


@pytest.fixture(scope="module")
def prediction(record: Pseudobulk) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.maximum(record.target + rng.normal(0, 2.5, record.target.shape), 0).astype(np.float32)


def profiles(record: Pseudobulk, prediction: np.ndarray, **changes: object) -> Profiles:
    given = {
        "eval_control": record.eval_control.astype(np.float64),
        "input_control": record.input_control.astype(np.float64),
        "significant": significant_genes(record),
        "own": own_columns(record),
    }
    truth = record.target.astype(np.float64)
    return Profiles(truth, prediction.astype(np.float64), CellsContext(**(given | changes)))


def test_measured_and_predicted_tables_have_the_same_labels_and_genes(record, prediction) -> None:
    real, predicted = cell_eval_pair(record, prediction)
    assert list(real.var_names) == list(predicted.var_names) == record.genes.tolist()
    assert set(real.obs[PERTURBATION]) == set(predicted.obs[PERTURBATION]) == {*record.perturbation, CONTROL}
    assert predicted.n_obs == len(record) + len(record.input_cells(0))
    for table, control, level in (
        (real, record.eval_control, record.target),
        (predicted, record.input_control, prediction),
    ):
        means = pd.DataFrame(table.X.toarray()).groupby(table.obs[PERTURBATION].to_numpy()).mean()
        np.testing.assert_allclose(means.loc[CONTROL], control[0], atol=1e-5)
        np.testing.assert_allclose(means.loc[record.perturbation], level, atol=1e-5)


def test_sets_are_as_many_cells_and_nothing_is_below_zero(record) -> None:
    sets = np.random.default_rng(1).normal(1, 1, (len(record), 5, len(record.genes)))
    _, predicted = cell_eval_pair(record, sets)
    counts = predicted.obs[PERTURBATION].value_counts()
    assert (counts[record.perturbation] == 5).all()
    assert predicted.X.min() >= 0


def test_each_group_keeps_its_own_controls() -> None:
    cells = simulate_cells(n_genes=20, scale="lognorm").cells
    record = Pseudobulk.from_cells(cells, covariates=("cell_line",))
    real, predicted = cell_eval_pair(record, record.target)
    for half, table in ((True, real), (False, predicted)):
        for group in ("LINE1", "LINE2"):
            i = int(np.flatnonzero(record.group == group)[0])
            held = (table.obs.celltype == group) & (table.obs[PERTURBATION] == CONTROL)
            assert held.sum() == len(record.eval_cells(i) if half else record.input_cells(i))


def test_predictions_that_do_not_fit_are_refused(record, prediction) -> None:
    with pytest.raises(InputError, match="predictions of shape"):
        cell_eval_pair(record, prediction[:3])
    spoilt = prediction.copy()
    spoilt[2] = np.nan
    with pytest.raises(InputError, match="without a prediction"):
        cell_eval_pair(record, spoilt)


def test_the_files_are_read_back_as_they_were(record, prediction, tmp_path: Path) -> None:
    import anndata

    paths = write_cell_eval(tmp_path, record, prediction)
    assert [path.name for path in paths] == ["cell_eval_real.h5ad", "cell_eval_predicted.h5ad"]
    for path, table in zip(paths, cell_eval_pair(record, prediction), strict=True):
        back = anndata.read_h5ad(path)
        assert (back.X != table.X).nnz == 0
        assert back.obs[PERTURBATION].astype(str).tolist() == table.obs[PERTURBATION].tolist()


# Beside the package ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cell_eval() -> ModuleType:
    import cell_eval

    return cell_eval


def double_pair(cell_eval: ModuleType, one: Profiles, genes: np.ndarray, labels: np.ndarray):
    """Truth and prediction as one cell each, in double precision, beside controls of the given mean."""
    import anndata

    def table(level: np.ndarray, control: np.ndarray) -> anndata.AnnData:
        names = np.concatenate([labels, np.repeat(CONTROL, CONTROL_CELLS)])
        obs = pd.DataFrame({PERTURBATION: names}, index=np.arange(len(names)).astype(str))
        X = np.concatenate([level, np.repeat(control[:1], CONTROL_CELLS, axis=0)])
        return anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=genes))

    real, predicted = table(one.truth, one.context.eval_control), table(one.prediction, one.context.input_control)
    return cell_eval.PerturbationAnndataPair(real, predicted, PERTURBATION, CONTROL)


def test_mae_mse_pearson_delta_and_pds_agree_with_the_package_to_1e_9(cell_eval, record, prediction) -> None:
    from cell_eval.metrics import discrimination_score, mae, mse
    from cell_eval.metrics import pearson_delta as theirs_pearson

    # A double names no gene of the list there, so that both of its genes stay in; ours leaves out both.
    single = np.array([len(targets) == 1 for targets in record.targets])
    one = profiles(record, prediction, own=np.where(single, own_columns(record)[:, 0], -1))
    pair = double_pair(cell_eval, one, record.genes, record.perturbation)
    for ours, theirs in (
        (mae_over_genes, mae),
        (mse_over_genes, mse),
        (pearson_delta, theirs_pearson),
        (pds, lambda data: discrimination_score(data, "l1")),
        (pds_cosine, lambda data: discrimination_score(data, "cosine")),
    ):
        found = theirs(pair)
        expected = [found[label] for label in record.perturbation.tolist()]
        np.testing.assert_allclose(ours(one), expected, atol=1e-9)
    assert 0.5 < pds(one).mean() < 1


def de_tables(cell_eval: ModuleType, one: Profiles, genes: np.ndarray, labels: np.ndarray, significant: np.ndarray):
    """Tables of fold changes: truth significant where it is, the prediction where ``significant`` says."""
    import polars as pl

    def table(change: np.ndarray, held: np.ndarray) -> pl.DataFrame:
        fdr = np.where(held, 0.001, 0.9).ravel()
        columns = {"target": np.repeat(labels, len(genes)), "feature": np.tile(genes, len(labels))}
        return pl.DataFrame(columns | {"log2_fold_change": change.ravel(), "p_value": fdr, "fdr": fdr})

    true, predicted = one.changes()
    return cell_eval.initialize_de_comparison(table(true, one.context.significant), table(predicted, significant))


def test_des_agrees_with_the_package_when_every_predicted_gene_may_stand(cell_eval, record, prediction) -> None:
    one = profiles(record, prediction)
    assert one.context.significant.any(1).all()
    data = de_tables(cell_eval, one, record.genes, record.perturbation, np.ones_like(one.context.significant))
    theirs = data.compute_overlap(k=None, metric="overlap")
    np.testing.assert_allclose(des(one), [theirs[label] for label in record.perturbation.tolist()], atol=1e-9)


def test_des_differs_for_an_empty_set_and_for_predictions_with_a_test_of_their_own(
    cell_eval, record, prediction
) -> None:
    one = profiles(record, prediction)
    one.context.significant[2] = False
    few = np.zeros_like(one.context.significant)
    few[:, :3] = True
    everything = de_tables(cell_eval, one, record.genes, record.perturbation, np.ones_like(few))
    tested = de_tables(cell_eval, one, record.genes, record.perturbation, few)
    label = str(record.perturbation[2])
    assert everything.compute_overlap(k=None)[label] == 0  # there a failure, here undefined
    assert np.isnan(des(one)[2])
    assert sum(tested.compute_overlap(k=None).values()) < np.nansum(des(one))


def test_the_package_reads_our_files_and_scores_the_same(cell_eval, record, prediction, tmp_path: Path) -> None:
    real, predicted = write_cell_eval(tmp_path, record, prediction)
    one = profiles(record, prediction)
    found = cell_eval.MetricsEvaluator(
        str(predicted), str(real), control_pert=CONTROL, pert_col=PERTURBATION, outdir=str(tmp_path), skip_de=True,
        num_threads=1,
    )  # fmt: skip
    table, _ = found.compute("anndata", skip_metrics=["clustering_agreement", "pearson_edistance"], write_csv=False)
    scores = {row["perturbation"]: row for row in table.to_dicts()}
    expected = [scores[label]["mae"] for label in record.perturbation.tolist()]
    np.testing.assert_allclose(mae_over_genes(one), expected, atol=1e-5)
    single = [i for i, targets in enumerate(record.targets) if len(targets) == 1]
    expected = [scores[label]["discrimination_score_l1"] for label in record.perturbation[single].tolist()]
    np.testing.assert_allclose(pds(one)[single], expected, atol=1e-5)
