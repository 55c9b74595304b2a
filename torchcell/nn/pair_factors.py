"""Factors of a table of pairs by least squares: u_i . v_j for the pairs that were measured."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

MISSING_WEIGHT = 0.02
"""Weight of a pair without a value, as a zero: in a screen that lists only its hits it is most often a null."""


def pair_values(gene: np.ndarray, ptr: np.ndarray, value: np.ndarray, n_genes: int) -> sp.csr_matrix:
    """Mean value of the sets that hold each pair of genes, symmetric [n_genes, n_genes].

    Each pair of a set gets an equal part of the set's value, since a score adds its pairs up.

    Args:
        gene: Members of all sets [M].
        ptr: Set b holds members ``ptr[b]`` to ``ptr[b + 1]`` [B + 1].
        value: Of each set [B]; NaN is missing. Sets of one are passed over.
        n_genes: Size of the table.
    """
    size, owners, keys = np.diff(ptr), [], []
    for n_members in np.unique(size[size > 1]).tolist():
        sets = np.flatnonzero((size == n_members) & ~np.isnan(value))
        member = np.sort(gene[ptr[sets][:, None] + np.arange(n_members)].astype(np.int64), axis=1)
        a, b = np.triu_indices(n_members, 1)
        differ = (member[:, a] != member[:, b]).ravel()  # a gene that stands twice in a set is no pair
        owners.append(np.repeat(sets, len(a))[differ])
        keys.append((member[:, a] * n_genes + member[:, b]).ravel()[differ])
    owner, key = (np.concatenate([np.empty(0, dtype=np.int64), *parts]) for parts in (owners, keys))
    owner, key = np.unique(np.stack([owner, key]), axis=1)  # nor do its pairs with others count twice
    part = value[owner] / np.bincount(owner)[owner]
    found, position, count = np.unique(key, return_inverse=True, return_counts=True)
    mean = (np.bincount(position, weights=part, minlength=len(found)) / count).astype(np.float32)
    # Built from positions, never by adding matrices, which would forget the pairs whose value is 0.
    low, high = found // n_genes, found % n_genes
    where = np.concatenate([low, high]), np.concatenate([high, low])
    return sp.csr_matrix((np.concatenate([mean, mean]), where), shape=(n_genes, n_genes))


def alternating_least_squares(
    matrix: sp.csr_matrix,
    rank: int,
    penalty: float,
    missing_weight: float = MISSING_WEIGHT,
    n_iter: int = 8,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Factors u and v [n, rank] of a symmetric table with known and missing entries; zeros for empty rows.

    Minimises the squared error of u_i . v_j over the known entries, plus that of all missing ones as zeros with a
    small weight, plus ``penalty`` times both factors' squared length. Deterministic.

    Args:
        matrix: Known entries, of root mean square 1 for the penalty to mean the same everywhere [n, n].
        rank: Width of the factors.
        penalty: Lambda.
        missing_weight: Weight of a missing entry.
        n_iter: Sweeps over both factors.
        seed: Of the start.

    Source: Hu, Koren, Volinsky, ICDM 2008.
    """
    v = np.random.default_rng(seed).normal(0, 0.1, (matrix.shape[0], rank)).astype(np.float32)
    v[np.diff(matrix.indptr) == 0] = 0
    u = v
    with threadpool_limits(limits=1):  # thousands of small systems: more threads wait for each other
        for _ in range(n_iter):
            u = _solve(matrix, v, penalty, missing_weight)
            v = _solve(matrix, u, penalty, missing_weight)
    return u, v


def signed_factors(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One vector a row for a symmetric score: (u_i . v_j + u_j . v_i) / 2 = sum_d sign_d e_id e_jd.

    Returns:
        e [n, 2 * rank] and sign [2 * rank]: (u + v) / 2 with +1, (u - v) / 2 with -1.
    """
    sign = np.repeat(np.array([1, -1], dtype=np.float32), u.shape[1])
    return np.concatenate([(u + v) / 2, (u - v) / 2], axis=1), sign


def least_squares_factors(
    gene: np.ndarray, ptr: np.ndarray, target: np.ndarray, n_genes: int, width: int, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors whose signed products say what the sets' pairs were measured to be, a stretch of ``width`` a phenotype.

    Args:
        gene: Members of all sets [M].
        ptr: Pointers [B + 1].
        target: Phenotypes, 0 for no effect, NaN for missing [B, T].
        n_genes: Rows of the vectors.
        width: Of all stretches together; what does not divide by 2 T stays zero.
        penalty: See ``alternating_least_squares``.

    Returns:
        e [n_genes, width] and sign [T, width], float32: y_t of a pair (i, j) is about sum_d sign_td e_id e_jd.
    """
    n_outputs = target.shape[1]
    rank = width // (2 * n_outputs)
    vectors, signs = np.zeros((n_genes, width), np.float32), np.zeros((n_outputs, width), np.float32)
    for t in range(n_outputs):
        table = pair_values(gene, ptr, target[:, t], n_genes)
        size = float(np.sqrt(np.mean(table.data**2))) if table.nnz else 0.0
        if not size:
            continue
        table.data /= size
        stretch = slice(2 * rank * t, 2 * rank * (t + 1))
        e, signs[t, stretch] = signed_factors(*alternating_least_squares(table, rank, penalty))
        vectors[:, stretch] = e * np.sqrt(size)
    return vectors, signs


def _solve(matrix: sp.csr_matrix, factor: np.ndarray, penalty: float, missing_weight: float) -> np.ndarray:
    """The least-squares rows of one factor given the other."""
    solved = np.zeros_like(factor)
    shared = missing_weight * (factor.T @ factor)
    shared[np.diag_indices_from(shared)] += penalty
    # With L L^T = shared and z = L^-1 f a row's system is I + (1 - w) sum z z^T: of its Gram matrix over the rank
    # and that over the row's known pairs the smaller one is solved.
    cholesky = np.linalg.cholesky(shared)
    white = scipy.linalg.solve_triangular(cholesky, factor.T, lower=True).T
    weight = np.float32(1 - missing_weight)
    for row in np.flatnonzero(np.diff(matrix.indptr)).tolist():
        known = slice(matrix.indptr[row], matrix.indptr[row + 1])
        part, value = white[matrix.indices[known]], matrix.data[known]
        wide = len(part) > part.shape[1]
        gram = weight * (part.T @ part if wide else part @ part.T)
        gram[np.diag_indices_from(gram)] += 1
        solved[row] = np.linalg.solve(gram, part.T @ value) if wide else part.T @ np.linalg.solve(gram, value)
    return scipy.linalg.solve_triangular(cholesky, solved.T, lower=True, trans="T").T
