"""Each baseline finds the truth that it is made for."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from tests.screen.planted import assign_folds, pairs_of, ring, screen
from torchcell.core.predictor import validation_score
from torchcell.graph.cell_graph import CellGraph
from torchcell.screen.baselines import AdditiveRidge, Mean, QueryPairMean
from torchcell.screen.baselines_fitted import LowRankALS, NetworkNeighbors, ProfileNeighbors
from torchcell.screen.baselines_learned import EmbeddingSumMLP, GradientBoosting


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_the_mean_is_that_of_train_and_skips_missing_values() -> None:
    train = screen([(0,), (1,), (0, 1)], np.array([[1.0, np.nan], [2.0, 4.0], [6.0, 8.0]]), 3)
    test = screen([(2,)], np.array([[9.0, 9.0]]), 3)
    np.testing.assert_allclose(Mean().fit(train, test, None).predict(test), [[3.0, 6.0]])


def test_the_ridge_recovers_additive_effects() -> None:
    effect = np.random.default_rng(0).normal(size=20)
    record = pairs_of(1.5 + effect[:, None] + effect[None, :])
    train, val, test = assign_folds(record)
    prediction = AdditiveRidge(alphas=(1e-8,)).fit(train, val, None).predict(test)
    np.testing.assert_allclose(prediction, test.phenotype, atol=1e-4)


def test_the_ridge_equals_its_normal_equations() -> None:
    rng = np.random.default_rng(1)
    record = pairs_of(rng.normal(size=(9, 9)))
    train, val, test = assign_folds(record)

    def dense(x: object) -> np.ndarray:
        rows = np.zeros((len(x), 9))  # type: ignore[arg-type]
        rows[x.owner, x.gene] = 1  # type: ignore[attr-defined]
        return rows

    a, y = dense(train), train.phenotype[:, 0].astype(float)
    centered = a - a.mean(0)
    w = np.linalg.solve(centered.T @ centered + 3.0 * np.eye(9), centered.T @ (y - y.mean()))
    expected = y.mean() + (dense(test) - a.mean(0)) @ w
    fitted = AdditiveRidge(alphas=(3.0,)).fit(train, val, None)
    np.testing.assert_allclose(fitted.predict(test)[:, 0], expected, atol=1e-5)


def test_the_query_pair_mean_is_shrunk_by_its_pseudo_count() -> None:
    query = {"columns": {"query": np.array(["G000|G001", "G001|G000", "G000|G002", "G000|G001"])}}
    sets = [(0, 1, 3), (0, 1, 4), (0, 2, 3), (0, 1)]
    train = screen(sets, np.array([1.0, 3.0, 8.0, 50.0]), 6, **query)
    fitted = QueryPairMean(pseudo_counts=(2.0,)).fit(train, train, None)
    asked = {"columns": {"query": np.array(["G001|G000", "G004|G003", "G000|G001", "G000"])}}
    test = screen([(0, 1, 5), (3, 4, 5), (0, 5), (1, 5)], np.zeros(4), 6, **asked)
    # Overall mean of the triples 4; (1 + 3 + 2 * 4) / (2 + 2) = 3; an unseen pair gets 4, a pair screen nothing.
    np.testing.assert_allclose(fitted.predict(test)[:, 0], [3.0, 4.0, np.nan, np.nan])


def test_als_recovers_held_out_entries_of_a_rank_two_matrix() -> None:
    f = np.random.default_rng(2).normal(size=(40, 2))
    train, val, test = assign_folds(pairs_of(f @ np.diag([1.0, -0.8]) @ f.T))
    fitted = LowRankALS(rank=6, penalties=(0.01,), missing_weight=0.0, n_iter=30).fit(train, val, None)
    assert correlation(fitted.predict(test), test.phenotype) > 0.99
    additive = AdditiveRidge().fit(train, val, None)
    assert correlation(additive.predict(test), test.phenotype) < 0.5


def test_als_solves_the_same_rows_as_the_dense_weighted_form() -> None:
    from torchcell.screen.models.cell_graph_transformer.heads import _solve

    rng = np.random.default_rng(3)
    matrix = sp.random(12, 12, density=0.6, random_state=4, format="csr", dtype=np.float32)
    factor = rng.normal(size=(12, 5)).astype(np.float32)
    solved = _solve(matrix, factor, penalty=0.7, missing_weight=0.05)
    for row, known in enumerate((matrix != 0).toarray()):
        weight = np.where(known, 1.0, 0.05)
        system = factor.T @ (weight[:, None] * factor) + 0.7 * np.eye(5)
        right = factor.T @ (weight * matrix[row].toarray().ravel())
        expected = np.linalg.solve(system, right) if known.any() else np.zeros(5)
        np.testing.assert_allclose(solved[row], expected, atol=1e-4)


def twin_matrix(n: int = 30, copies: int = 2, seed: int = 5) -> np.ndarray:
    """Each gene has ``copies`` that interact alike; there is nothing else to learn."""
    half = np.random.default_rng(seed).normal(size=(n // copies, n // copies))
    return np.kron(half + half.T, np.ones((copies, copies)))


def test_profile_neighbors_find_duplicated_genes() -> None:
    train, val, test = assign_folds(pairs_of(twin_matrix(60, copies=4)))
    prediction = ProfileNeighbors(k=5).fit(train, val, None).predict(test)
    assert correlation(prediction, test.phenotype) > 0.9


def test_profiles_of_genes_without_training_values_are_undefined() -> None:
    record = pairs_of(twin_matrix())
    strange = (record.gene.reshape(-1, 2) == 7).any(1)
    train, val, rest = assign_folds(record.subset(~strange))
    test = record.subset(strange)
    for baseline in (ProfileNeighbors(k=5), LowRankALS(rank=4)):
        fitted = baseline.fit(train, val, None)
        assert np.isnan(fitted.predict(test)).all()
        assert np.isfinite(fitted.predict(rest)).all()


def twin_graph(n: int = 30) -> CellGraph:
    """Twins share their neighbors, which are genes that were never screened."""
    rows, columns = np.arange(n), n + np.arange(n) // 2
    edges = sp.csr_matrix((np.ones(n), (rows, columns)), shape=(n + n // 2,) * 2)
    return CellGraph([f"G{i:03d}" for i in range(n + n // 2)], {"shared": edges + edges.T})


def test_network_neighbors_predict_an_unscreened_gene_from_its_twin() -> None:
    record = pairs_of(twin_matrix())
    pair = record.gene.reshape(-1, 2)
    is_test, is_val = np.isin(pair, [7, 13]).any(1), np.isin(pair, [21, 25]).any(1)
    train, val, test = record.subset(~is_test & ~is_val), record.subset(is_val & ~is_test), record.subset(is_test)
    fitted = NetworkNeighbors(k=3).fit(train, val, twin_graph())
    assert correlation(fitted.predict(test), test.phenotype) > 0.9
    assert np.isnan(ProfileNeighbors().fit(train, val, None).predict(test)).all()


@pytest.mark.parametrize(("chunk", "n_pairs"), [(512, 50), (3, 50), (3, 4)])
def test_smoothing_equals_the_dense_products(monkeypatch, chunk: int, n_pairs: int) -> None:
    """Of few pairs only the rows that they name are computed, in chunks."""
    from torchcell.screen import baselines_fitted as neighbors
    from torchcell.screen.baselines_fitted import smooth_both, smooth_one

    monkeypatch.setattr(neighbors, "CHUNK", chunk)
    rng = np.random.default_rng(6)
    w = sp.random(17, 17, density=0.3, random_state=7, format="csr", dtype=np.float32)
    r = sp.random(17, 17, density=0.4, random_state=8, format="csr", dtype=np.float32)
    r = (r + r.T).tocsr()
    left, right = rng.integers(0, 17, (2, n_pairs))
    dense, known, one = w.toarray(), r.toarray(), np.eye(17)
    expected = (known + dense @ known + known @ dense.T)[left, right]
    np.testing.assert_allclose(smooth_one(w, r, left, right), expected, atol=1e-5)
    expected = ((one + dense) @ known @ (one + dense).T)[left, right]
    np.testing.assert_allclose(smooth_both(w, r, left, right), expected, atol=1e-5)


def test_boosting_sees_the_edges_and_cosines_within_a_set() -> None:
    train = screen([(0, 1), (0, 2), (0, 3), (0, 1, 9), (4,)], np.arange(5), 12)
    fitted = GradientBoosting(max_iter=2, dim=2).fit(train, train, ring(12))
    mean_edge, mean_cosine, largest_edge, largest_cosine = fitted._features(train)[:, -4:].T
    np.testing.assert_allclose(mean_edge, [1, 1, 0, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(largest_edge, [1, 1, 0, 1, 0])
    # Genes of a ring share 4, 3 and 2 of their 5 neighbors (themselves included) at distance 1, 2 and 3, one at 4.
    np.testing.assert_allclose(largest_cosine, [0.8, 0.6, 0.4, 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(mean_cosine, [0.8, 0.6, 0.4, (0.8 + 0.4 + 0.2) / 3, 0], atol=1e-6)


def test_boosting_learns_that_network_neighbors_interact() -> None:
    n = 60
    position = np.arange(n)
    gap = np.abs(position[:, None] - position[None, :])
    matrix = np.where(np.minimum(gap, n - gap) <= 2, 1.0, 0.0)
    train, val, test = assign_folds(pairs_of(matrix))
    fitted = GradientBoosting(max_iter=30, min_samples_leaf=5, dim=4).fit(train, val, ring(n))
    assert correlation(fitted.predict(test), test.phenotype) > 0.95


def test_the_mlp_learns_a_nonlinear_function_of_the_sum() -> None:
    effect = np.random.default_rng(9).choice([-1.0, 1.0], size=40)
    train, val, test = assign_folds(pairs_of((effect[:, None] + effect[None, :]) ** 2))
    fitted = EmbeddingSumMLP(dim=16, hidden=64, batch_size=64, max_epochs=60, patience=20).fit(train, val, None)
    assert correlation(fitted.predict(test), test.phenotype) > 0.7
    assert correlation(AdditiveRidge().fit(train, val, None).predict(test), test.phenotype) < 0.4


def test_the_validation_score_ranks_undefined_last() -> None:
    truth = np.array([0.0, 1.0, 1.0, np.nan])
    assert validation_score(truth, np.array([0.0, 2.0, 2.0, -9.0]), "regression") == pytest.approx(1.0)
    assert validation_score(truth, np.array([0.1, 0.2, 0.3, -9.0]), "binary") == 1.0
    assert validation_score(truth, np.ones(4), "regression") == -np.inf


def test_a_gene_with_only_zeros_in_train_is_known_to_the_factorization() -> None:
    matrix = twin_matrix(20)
    matrix[3] = matrix[:, 3] = 0
    train, val, test = assign_folds(pairs_of(matrix))
    assert np.isfinite(LowRankALS(rank=4).fit(train, val, None).predict(test)).all()
