"""Which sets the simulated screen perturbs: query genes crossed with array genes."""

from __future__ import annotations

import numpy as np

from torchcell.data.errors import InputError
from torchcell.data.simulate_mechanism import Mechanism

ARRAYS_PER_QUERY_PAIR = 40
"""Array genes that each pair of query genes is crossed with."""


def draw_library(
    mechanism: Mechanism, n_queries: int, n_arrays: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose query genes and array genes.

    Query genes weaken growth when lost alone, as those of real screens do, and come in turn from each
    pathway. Array genes are any genes; a third of the queries is among them.

    Returns:
        Queries int64 [n_queries] and arrays int64 [n_arrays].
    """
    n_genes, pathway = len(mechanism.module), mechanism.gene_pathway
    order = rng.permutation(np.flatnonzero(mechanism.exposed))
    if not 2 <= n_queries <= min(n_arrays, len(order)) or n_queries + n_arrays > n_genes:
        raise InputError(
            f"{n_queries} query and {n_arrays} array genes do not fit: of {n_genes} genes {len(order)} can be "
            "queries, there must be as many arrays as queries, and both together at most all genes"
        )
    rank = np.zeros(n_genes, dtype=np.int64)  # how many genes of its pathway stand before a gene in the order
    for index in range(len(mechanism.process)):
        of_pathway = order[pathway[order] == index]
        rank[of_pathway] = np.arange(len(of_pathway))
    queries = order[np.argsort(rank[order], kind="stable")][:n_queries]
    both = rng.permutation(queries)[: n_queries // 3]
    others = rng.permutation(np.setdiff1d(np.arange(n_genes), queries))[: n_arrays - len(both)]
    return queries, np.sort(np.concatenate([both, others]))


def draw_pairs(queries: np.ndarray, arrays: np.ndarray, n_pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct unordered pairs [query, array], uniform over the grid, int64 [n_pairs, 2]."""
    grid = np.stack(np.meshgrid(queries, arrays, indexing="ij"), axis=-1).reshape(-1, 2)
    grid = grid[grid[:, 0] != grid[:, 1]]
    _, first = np.unique(np.sort(grid, axis=1), axis=0, return_index=True)
    if not 0 < n_pairs <= len(first):
        raise InputError(f"{n_pairs} pairs are asked for; the queries and arrays allow 1 to {len(first)}")
    return grid[np.sort(rng.choice(first, n_pairs, replace=False))]


def draw_triples(
    mechanism: Mechanism, queries: np.ndarray, arrays: np.ndarray, n_triples: int, rng: np.random.Generator
) -> np.ndarray:
    """Distinct triples [query, query, array], int64 [n_triples, 3]: pairs of queries crossed with arrays.

    Every second query pair hits two pathways of one triad. Half of a pair's arrays come from the triads
    of its genes, as a follow-up screen would choose them; the other half are any.
    """
    pathway = mechanism.gene_pathway
    triad = np.where(pathway < 0, -1, pathway // 3)
    first, second = np.triu_indices(len(queries), 1)
    pairs = rng.permutation(np.stack([queries[first], queries[second]], axis=1))
    a, b = pairs.T
    linked = (triad[a] == triad[b]) & (pathway[a] != pathway[b])
    in_turn = [pair for two in zip(pairs[linked], pairs[~linked], strict=False) for pair in two]
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    for pair in in_turn:
        if len(found) >= n_triples:
            break
        allowed = np.setdiff1d(arrays, pair)
        related = rng.permutation(allowed[np.isin(triad[allowed], triad[pair])])[: ARRAYS_PER_QUERY_PAIR // 2]
        rest = rng.permutation(np.setdiff1d(allowed, related))[: ARRAYS_PER_QUERY_PAIR - len(related)]
        for array in np.concatenate([related, rest]).tolist():
            triple = (*pair.tolist(), array)
            found.setdefault(tuple(sorted(triple)), triple)
    if n_triples > len(found):
        raise InputError(f"{n_triples} triples are asked for; the queries and arrays gave {len(found)}")
    return np.array(list(found.values()), dtype=np.int64).reshape(-1, 3)[:n_triples]
