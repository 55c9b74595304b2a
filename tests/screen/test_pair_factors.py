"""Tables of pairs and their least-squares factors: against loops, a planted table and the objective itself."""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import scipy.sparse as sp

from torchcell.screen.models.cell_graph_transformer.heads import (
    alternating_least_squares,
    least_squares_factors,
    pair_values,
    signed_factors,
)


def symmetric(n: int, density: float, seed: int) -> sp.csr_matrix:
    """Random known entries of both signs."""
    rng = np.random.default_rng(seed)
    value, known = rng.normal(size=(n, n)), np.triu(rng.random((n, n)) < density, 1)
    upper = np.where(known, value, 0)
    return sp.csr_matrix(upper + upper.T, dtype=np.float32)


def planted(n: int, seed: int) -> np.ndarray:
    """A symmetric table of rank 2 with one negative direction."""
    f = np.random.default_rng(seed).normal(size=(n, 2))
    return f @ np.diag([1.0, -0.8]) @ f.T


def packed(sets: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Members side by side, and pointers."""
    return np.array([g for members in sets for g in members]), np.cumsum([0, *map(len, sets)])


def objective(matrix: sp.csr_matrix, u: np.ndarray, v: np.ndarray, penalty: float, missing_weight: float) -> float:
    """What alternating least squares makes small; rows without a value take no part."""
    known, seen = matrix.toarray() != 0, np.diff(matrix.indptr) > 0
    weight = np.where(known, 1.0, missing_weight) * np.outer(seen, seen)
    return float((weight * (matrix.toarray() - u @ v.T) ** 2).sum() + penalty * ((u**2).sum() + (v**2).sum()))


def test_pair_values_are_the_means_of_a_loop_over_sets_whose_pairs_share_their_value():
    rng = np.random.default_rng(0)
    sets = [tuple(rng.choice(9, size, replace=False).tolist()) for size in rng.integers(1, 5, 60)]
    value = np.where(rng.random(60) < 0.2, np.nan, rng.normal(size=60))
    held: dict[tuple[int, int], list[float]] = {}
    for members, y in zip(sets, value, strict=True):
        for i, j in combinations(members, 2):
            if not np.isnan(y):
                held.setdefault((i, j), []).append(y / math.comb(len(members), 2))
                held.setdefault((j, i), []).append(y / math.comb(len(members), 2))
    assert any(len(members) == 1 for members in sets)
    assert np.isnan(value).any()
    expected, known = np.zeros((12, 12)), np.zeros((12, 12), dtype=bool)
    for place, values in held.items():
        expected[place], known[place] = np.mean(values), True
    table = pair_values(*packed(sets), value, 12)
    np.testing.assert_allclose(table.toarray(), expected, atol=1e-6)
    assert table.nnz == known.sum()


def test_a_pair_measured_to_be_zero_is_known_and_one_never_measured_is_not():
    """Adding sparse matrices forgot zeros: nulls then weighed as little as pairs that were never made."""
    table = pair_values(*packed([(0, 1), (1, 2), (2, 1), (0, 3)]), np.array([0.0, 1.0, -1.0, np.nan]), 4)
    assert sorted(zip(*table.tocoo().coords, strict=True)) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert (table.data == 0).all()


def test_a_set_counts_once_for_a_pair_also_when_it_names_a_gene_twice():
    table = pair_values(*packed([(0, 0, 1), (1, 0)]), np.array([1.0, 4.0]), 2)
    np.testing.assert_allclose(table.toarray(), [[0, 2.5], [2.5, 0]])


def test_sets_without_a_pair_give_an_empty_table():
    assert pair_values(*packed([(0,), (1, 2)]), np.array([1.0, np.nan]), 3).nnz == 0


@pytest.mark.parametrize(("rank", "missing_weight"), [(3, 0.02), (3, 0.3), (40, 0.02)])
def test_every_sweep_lowers_the_objective(rank, missing_weight):
    """Rank 40 of 25 rows takes the Gram matrix over known pairs, rank 3 the one over the rank."""
    matrix = symmetric(25, 0.4, 1)
    values = [
        objective(matrix, *alternating_least_squares(matrix, rank, 0.5, missing_weight, n_iter), 0.5, missing_weight)
        for n_iter in range(1, 7)
    ]
    assert all(after < before * (1 + 1e-5) for before, after in pairwise(values))
    assert values[-1] < 0.98 * values[0]
    assert values[0] < objective(matrix, np.zeros((25, rank)), np.zeros((25, rank)), 0.5, missing_weight)


def test_the_last_factor_is_the_minimum_given_the_other():
    """The gradient of the objective in v is 0 where the sweeps end."""
    matrix = symmetric(20, 0.5, 2)
    u, v = (factor.astype(np.float64) for factor in alternating_least_squares(matrix, 4, 0.7, 0.1, 3))
    for place in ((0, 0), (7, 2), (19, 3)):
        step = np.zeros_like(v)
        step[place] = 1e-4
        slope = (objective(matrix, u, v + step, 0.7, 0.1) - objective(matrix, u, v - step, 0.7, 0.1)) / 2e-4
        assert abs(slope) < 1e-3


def test_held_out_entries_of_a_planted_table_are_recovered():
    truth = planted(50, 3)
    known = np.triu(np.random.default_rng(4).random((50, 50)) < 0.5, 1)
    known = known | known.T
    u, v = alternating_least_squares(sp.csr_matrix(truth * known, dtype=np.float32), 4, 0.01, 0.0, 40)
    asked = np.triu(~known, 1)
    assert np.corrcoef(((u @ v.T + v @ u.T) / 2)[asked], truth[asked])[0, 1] > 0.99


def test_genes_without_a_known_pair_have_zeros_and_the_seed_decides_all():
    matrix = symmetric(10, 0.6, 5)
    matrix.resize(12, 12)
    u, v = alternating_least_squares(matrix, 3, 1.0, n_iter=2, seed=6)
    assert (u[10:] == 0).all()
    assert (v[10:] == 0).all()
    assert (np.abs(u[:10]).max(1) > 0).all()
    for one, other in zip((u, v), alternating_least_squares(matrix, 3, 1.0, n_iter=2, seed=6), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.allclose(u, alternating_least_squares(matrix, 3, 1.0, n_iter=2, seed=7)[0])


def test_signed_factors_say_the_symmetric_score_of_both():
    rng = np.random.default_rng(8)
    u, v = rng.normal(size=(2, 7, 3)).astype(np.float32)
    e, sign = signed_factors(u, v)
    assert e.shape == (7, 6)
    assert sign.tolist() == [1, 1, 1, -1, -1, -1]
    np.testing.assert_allclose((e * sign) @ e.T, (u @ v.T + v @ u.T) / 2, atol=1e-5)


def test_each_phenotype_has_a_stretch_of_the_vectors_on_its_own_scale():
    """Two planted tables, the second a hundred times larger, and a width of which one column is left over."""
    tables = planted(30, 9), 100 * planted(30, 10)
    sets = list(combinations(range(30), 2))
    target = np.stack([[table[i, j] for i, j in sets] for table in tables], axis=1)
    target[::7, 0] = np.nan
    e, sign = least_squares_factors(*packed(sets), target, 32, 17, 0.01)
    assert e.shape == (32, 17)
    assert sign.shape == (2, 17)
    assert e.dtype == sign.dtype == np.float32
    assert (sign[0, 8:] == 0).all()
    assert (sign[1, :8] == 0).all()
    assert (e[:, 16] == 0).all()
    assert (e[30:] == 0).all()
    i, j = np.array(sets).T
    for t in range(2):
        told, truth = (e[i] * sign[t] * e[j]).sum(1), tables[t][i, j]
        assert np.abs(told - truth).mean() < 0.1 * np.abs(truth).mean()


def test_a_phenotype_that_was_never_measured_or_is_always_zero_says_nothing():
    sets = list(combinations(range(6), 2))
    target = np.stack([np.zeros(len(sets)), np.full(len(sets), np.nan), np.ones(len(sets))], axis=1)
    e, sign = least_squares_factors(*packed(sets), target, 6, 12, 0.1)
    assert (sign[:2] == 0).all()
    assert (e[:, :8] == 0).all()
    assert np.abs(e[:, 8:]).max() > 0.1
