"""Splits of screens: what is held out is a query gene, or genes in any role."""

from __future__ import annotations

import numpy as np

from torchcell.core.split import SplitMethods, assign_folds, padded
from torchcell.io.errors import InputError
from torchcell.screen.record import Screen


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
    parts = [{part_of[gene] for gene in genes} for genes in record.sets()]
    part = np.array([of.pop() if len(of) == 1 else "unused" for of in parts])
    return part, *genes_of_sets(record)


def query_genes(record: Screen) -> np.ndarray:
    """All genes that acted as a query anywhere in the screen."""
    if "query" not in record.columns:
        raise InputError(
            f"{record.name} has no column 'query', so there are no query genes to hold out; "
            "add the column (gene names joined by |), or use split=gene_disjoint_any"
        )
    named = {gene for cell in np.unique(record.columns["query"].astype(str)) for gene in cell.split("|") if gene}
    return np.array(sorted(named))


def _by_strictest(record: Screen, part_of: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The part of a set is that of its strictest gene (test, then val, then train).

    Its clusters are all genes that put it there: a pair of two held-out genes errs with either.
    """
    rank = {"test": 0, "val": 1, "train": 2}
    part, group = [], []
    for genes in record.sets():
        parts = [part_of.get(gene, "") for gene in genes]
        strictest = min(parts, key=lambda one: rank.get(one, 3))
        part.append(strictest or "train")
        group.append(tuple(dict.fromkeys(gene for gene, one in zip(genes, parts, strict=True) if one == strictest)))
    return np.array(part), padded(group)


def genes_of_sets(record: Screen) -> tuple[np.ndarray, str]:
    """The genes of each sample are its clusters."""
    return padded([tuple(dict.fromkeys(genes)) for genes in record.sets()]), "gene"


SPLITS = SplitMethods(
    "a screen",
    genes_of_sets,
    {
        "query_disjoint": query_disjoint,
        "gene_disjoint_any": gene_disjoint_any,
        "gene_disjoint_all": gene_disjoint_all,
    },
)
