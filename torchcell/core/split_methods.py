"""How samples are dealt to train, validation and test; test is fold f, validation fold f + 1 mod n."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from torchcell.cells.conditions import Conditions
from torchcell.cells.splits import cold_line, combination, perturbed_genes, unseen_perturbation
from torchcell.core.split import Split, deal, padded
from torchcell.drug_response.record import Response
from torchcell.drug_response.splits import by_condition, cold_cell, cold_drug, cold_drug_cell, cold_scaffold
from torchcell.io.errors import InputError, near
from torchcell.knowledge_graph.record import NEGATIVES, Links
from torchcell.screen.record import Screen

Method = Callable[[Any, int, int, int], tuple[np.ndarray, np.ndarray, str]]
"""(record, n_folds, fold, seed) -> (part [n], group [n], what the group names)."""


def make_split(
    record: Any, method: str, n_folds: int = 5, fold: int = 0, seed: int = 0, file: str | Path | None = None
) -> Split:
    """Deal the samples of ``record`` to parts, and check the result.

    Args:
        record: Any record; ``query_disjoint`` and ``gene_disjoint_*`` need a ``Screen``, those of ``splits.drug`` a
            ``Response``, those of ``splits.perturbation`` ``Conditions``.
        method: One of ``METHODS``, or ``file``.
        n_folds: Number of folds, at least 3.
        fold: The test fold; the next one validates.
        seed: Of the deal.
        file: For ``method=file``: a split that was saved or written by hand.

    Raises:
        InputError: An unknown method or fold, or a split that does not fit the record.
    """
    twins = record.twin_keys() if hasattr(record, "twin_keys") else None
    if method == "file":
        if file is None:
            raise InputError("split=file needs split.file=PATH, e.g. a run's split.parquet")
        split = Split.load(file).validate(record.sample_id, twins).aligned(record.sample_id)
        if not np.array_equal(split.group, split.sample_id):
            return split
        # The file names no clusters, and samples that share a gene are not independent.
        group, key = clusters_of(record)
        return replace(split, group=group, key=key)
    if method not in METHODS:
        hint = near(method, [*METHODS, "file"]) or [*METHODS, "file"]
        raise InputError(f"no split method {method!r}; the nearest are {hint}")
    if n_folds < 3 or not 0 <= fold < n_folds:
        raise InputError(f"split.fold={fold} of split.n_folds={n_folds}: needs at least 3 folds, numbered from 0")
    part, group, key = METHODS[method](record, n_folds, fold, seed)
    name = f"{method}-{fold}of{n_folds}-s{seed}"
    split = Split(record.sample_id, part, group, method, seed, key, name, n_folds=n_folds)
    return split.validate(record.sample_id, twins)


def random(record: Any, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Samples at random, twins together. Printed, never headline."""
    twins = record.twin_keys() if hasattr(record, "twin_keys") else record.sample_id
    part_of = deal(twins.astype(str), n_folds, fold, seed)
    part = np.array([part_of[key] for key in twins.astype(str).tolist()])
    return part, *clusters_of(record)


def clusters_of(record: Any) -> tuple[np.ndarray, str]:
    """The clusters of each sample where nothing is held out [n] or [n, K], and what they are."""
    if isinstance(record, Screen):
        return padded([tuple(dict.fromkeys(genes)) for genes in record.sets()]), "gene"
    if isinstance(record, Response):  # replicates are torn apart, yet they are no independent clusters
        return record.condition, "condition"
    if isinstance(record, Conditions):  # a perturbation in several lines is one cluster
        return perturbed_genes(record), "perturbed gene"
    twins = record.twin_keys() if hasattr(record, "twin_keys") else record.sample_id
    return twins.astype(str), "sample"


def query_disjoint(record: Screen, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A set is test if any of its genes, in whatever role, is a held-out query gene."""
    queries = query_genes(record)
    part_of = deal(queries, n_folds, fold, seed)
    part, group = _by_strictest(record, part_of)
    return part, group, "query gene"


def gene_disjoint_any(record: Screen, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A set is test if any of its genes is held out."""
    part_of = deal(record.genes[np.unique(record.gene)], n_folds, fold, seed)
    part, group = _by_strictest(record, part_of)
    return part, group, "gene"


def gene_disjoint_all(record: Screen, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A set is test if all of its genes are held out; sets of mixed parts are ``unused``."""
    part_of = deal(record.genes[np.unique(record.gene)], n_folds, fold, seed)
    parts = [{part_of[gene] for gene in genes} for genes in record.sets()]
    part = np.array([of.pop() if len(of) == 1 else "unused" for of in parts])
    return part, padded([tuple(dict.fromkeys(genes)) for genes in record.sets()]), "gene"


def edges(record: Links, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """The edges of each metaedge at random, both directions of one together; negatives in the same shares.

    A negative goes where the edge of its rank goes: negatives are drawn at random, so that is a random deal too.
    """
    if not isinstance(record, Links):
        raise InputError(f"split=edges deals candidate edges, and {record.name} holds none; use split=random")
    part, twins = np.empty(len(record), dtype="<U6"), record.twin_keys()
    for metaedge in record.supervised:
        of_metaedge = record.metaedge == metaedge
        positive = np.flatnonzero(of_metaedge & record.positive)
        if not len(positive):
            raise InputError(f"{record.name}: no edge of {metaedge} to deal to train, val and test")
        part_of = deal(twins[positive], n_folds, fold, seed)
        part[positive] = [part_of[key] for key in twins[positive].tolist()]
        column = record.outputs.index(f"{metaedge}_{NEGATIVES[0]}")
        for t in range(column, column + len(NEGATIVES)):
            negative = np.flatnonzero(record.label[:, t] == 0)
            part[negative] = part[positive][np.arange(len(negative)) % len(positive)]
    return part, record.node_id[record.source_index], "source node"


def cold_cell_or_line(record: Any, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A cell line is held out, of a drug response or of cells."""
    method = cold_line if isinstance(record, Conditions) else cold_cell
    return method(record, n_folds, fold, seed)


METHODS: dict[str, Method] = {
    "random": random,
    "query_disjoint": query_disjoint,
    "gene_disjoint_any": gene_disjoint_any,
    "gene_disjoint_all": gene_disjoint_all,
    "edges": edges,
    "condition": by_condition,
    "cold_drug": cold_drug,
    "scaffold": cold_scaffold,
    "cold_cell": cold_cell_or_line,
    "cold_drug_cell": cold_drug_cell,
    "unseen_perturbation": unseen_perturbation,
    "combination": combination,
}


def query_genes(record: Screen) -> np.ndarray:
    """All genes that acted as a query anywhere in the screen."""
    if not isinstance(record, Screen) or "query" not in record.columns:
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
