"""Splits of screens: what is held out is a query gene, or genes in any role."""

from __future__ import annotations

import numpy as np

from torchcell.core.split import SplitMethods, assign_folds, padded_rows
from torchcell.io.errors import InputError
from torchcell.io.text_arrays import numbered
from torchcell.screen.record import Screen

RANKED = np.array(["test", "val", "train", "train"])
"""Parts, the strictest first; the last is that of a set none of whose genes has a part."""


def query_disjoint(record: Screen, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A set is test if any of its genes, in whatever role, is a held-out query gene."""
    queries = query_genes(record)
    part_of = assign_folds(queries, n_folds, fold, seed)
    part, group = _by_strictest(record, part_of)
    return part, group, "query gene"


def gene_disjoint_any(record: Screen, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A set is test if any of its genes is held out."""
    part_of = assign_folds(record.genes[np.unique(record.gene)], n_folds, fold, seed)
    part, group = _by_strictest(record, part_of)
    return part, group, "gene"


def gene_disjoint_all(record: Screen, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A set is test if all of its genes are held out; sets of mixed parts are ``unused``."""
    part_of = assign_folds(record.genes[np.unique(record.gene)], n_folds, fold, seed)
    strictest, others = (_of_sets(record, _ranks(record, part_of), what) for what in (np.minimum, np.maximum))
    part = np.where(strictest == others, RANKED[strictest], "unused")
    return part, *genes_of_sets(record)


def query_genes(record: Screen) -> np.ndarray:
    """All genes that acted as a query anywhere in the screen."""
    if "query" not in record.columns:
        raise InputError(
            f"{record.name} has no column 'query', so there are no query genes to hold out; "
            "add the column (gene names joined by |), or use split=gene_disjoint_any"
        )
    cells, _ = numbered(record.columns["query"].astype(str, copy=False))
    named = {gene for cell in cells.tolist() for gene in cell.split("|") if gene}
    return np.array(sorted(named))


def _by_strictest(record: Screen, part_of: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The part of a set is that of its strictest gene (test, then val, then train).

    Its clusters are all genes that put it there: a pair of two held-out genes errs with either.
    """
    rank = _ranks(record, part_of)
    strictest = _of_sets(record, rank, np.minimum)
    return RANKED[strictest], _clusters(record, rank[record.gene] == strictest[record.owner])


def _ranks(record: Screen, part_of: dict[str, str]) -> np.ndarray:
    """Of each gene the position of its part in ``RANKED``, int8 [N]; one without a part comes last."""
    rank = {part: i for i, part in reversed(list(enumerate(RANKED.tolist())))}
    return np.array([rank.get(part_of.get(gene, ""), len(rank)) for gene in record.genes.tolist()], dtype=np.int8)


def _of_sets(record: Screen, rank: np.ndarray, what: np.ufunc) -> np.ndarray:
    """``what``, the least or the largest, of the ranks of each set's genes [n]."""
    found = np.full(len(record), len(RANKED) - 1, dtype=np.int8)
    found[record.sizes > 0] = what.reduceat(rank[record.gene], record.ptr[:-1][record.sizes > 0])
    return found


def _clusters(record: Screen, chosen: np.ndarray) -> np.ndarray:
    """The names of the chosen members [M] of each sample as its clusters, see ``core.split.padded``."""
    sizes = np.bincount(record.owner[chosen], minlength=len(record))
    return padded_rows(record.genes.astype(str), sizes, record.gene[chosen])


def genes_of_sets(record: Screen) -> tuple[np.ndarray, str]:
    """The genes of each sample are its clusters."""
    return _clusters(record, np.ones(len(record.gene), dtype=bool)), "gene"


SPLITS = SplitMethods(
    "a screen",
    genes_of_sets,
    {
        "query_disjoint": query_disjoint,
        "gene_disjoint_any": gene_disjoint_any,
        "gene_disjoint_all": gene_disjoint_all,
    },
)
