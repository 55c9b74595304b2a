"""Small screens with a known truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from torchcell.graph.cell_graph import CellGraph
from torchcell.screen.record import Screen


def screen(sets: Sequence[Sequence[int]], phenotype: np.ndarray, n_genes: int, **fields: object) -> Screen:
    """A validated screen of gene positions ``sets`` with ``phenotype`` [n] or [n, T]."""
    y = np.asarray(phenotype, dtype=np.float32).reshape(len(sets), -1)
    gene = np.array([g for members in sets for g in members], dtype=np.int64)
    ptr = np.concatenate([[0], np.cumsum([len(members) for members in sets])]).astype(np.int64)
    given = {"kind": np.zeros(len(gene), dtype=np.int8)} | fields
    return Screen(
        name="planted",
        genes=np.array([f"G{i:03d}" for i in range(n_genes)]),
        gene=gene,
        ptr=ptr,
        phenotype=y,
        phenotype_names=tuple(f"p{t}" for t in range(y.shape[1])),
        sample_id=np.array(["|".join(map(str, members)) for members in sets]),
        **given,  # type: ignore[arg-type]
    ).validate()


def assign_folds(record: Screen, seed: int = 0) -> tuple[Screen, Screen, Screen]:
    """Train, val and test of 60, 20 and 20 percent."""
    order = np.random.default_rng(seed).permutation(len(record))
    a, b = int(0.6 * len(order)), int(0.8 * len(order))
    return record.subset(order[:a]), record.subset(order[a:b]), record.subset(order[b:])


def pairs_of(matrix: np.ndarray, share: float = 1.0, seed: int = 0) -> Screen:
    """The pairs of a symmetric matrix as a screen; a random share of them."""
    n = len(matrix)
    left, right = np.triu_indices(n, 1)
    keep = np.random.default_rng(seed).random(len(left)) < share
    sets = list(zip(left[keep].tolist(), right[keep].tolist(), strict=True))
    return screen(sets, matrix[left[keep], right[keep]], n)


def ring(n_genes: int, names: np.ndarray | None = None) -> CellGraph:
    """Each gene joined to the next two."""
    genes = [f"G{i:03d}" for i in range(n_genes)] if names is None else names.tolist()
    i = np.arange(n_genes)
    matrix = sp.lil_matrix((n_genes, n_genes))
    for step in (1, 2):
        matrix[i, (i + step) % n_genes] = 1
        matrix[(i + step) % n_genes, i] = 1
    return CellGraph(genes, {"ring": matrix.tocsr()})


def mixed(seed: int = 0, n_genes: int = 24, n_outputs: int = 2) -> Screen:
    """Singles, pairs and triples, two phenotypes with missing values, two kinds, query and array columns."""
    rng = np.random.default_rng(seed)
    sets = [(g,) for g in range(n_genes)]
    seen = set()
    while len(sets) < 400:
        members = tuple(sorted(rng.choice(n_genes, size=rng.integers(2, 4), replace=False).tolist()))
        if members not in seen:
            seen.add(members)
            sets.append(members)
    effect = rng.normal(size=(n_genes, n_outputs))
    y = np.stack([effect[list(members)].sum(0) for members in sets]) + 0.1 * rng.normal(size=(len(sets), n_outputs))
    y[rng.random(len(sets)) < 0.2, 1] = np.nan
    size = sum(map(len, sets))
    query = ["|".join(f"G{g:03d}" for g in members[: max(len(members) - 1, 1)]) for members in sets]
    kind = rng.integers(0, 2, size).astype(np.int8)
    return screen(sets, y, n_genes, kind=kind, columns={"query": np.array(query)})
