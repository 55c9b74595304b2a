"""Splits of cells by condition: what is held out is a perturbed gene, a combination, or a cell line."""

from __future__ import annotations

import numpy as np

from torchcell.cells.pseudobulk import EVERYWHERE, Pseudobulk
from torchcell.core.split import SplitMethods, assign_folds, padded
from torchcell.io.errors import InputError

LINE = "cell_line"
"""The covariate that ``cold_cell`` holds out where there is one; else the whole group is."""
ENOUGH_UNITS = 5
"""Units in the test part from which on a bootstrap may resample them."""


def unseen_perturbation(record: Pseudobulk, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Genes are held out in all groups: no gene of a test condition is perturbed in training.

    Conditions that perturb genes of several parts are ``unused``.
    """
    targets = record.targets
    part_of = _assigned(record, np.array([gene for genes in targets for gene in genes]), "genes", n_folds, fold, seed)
    parts = [{part_of[gene] for gene in genes} for genes in targets]
    part = np.array([of.pop() if len(of) == 1 else "unused" for of in parts])
    return part, perturbed_genes(record), "perturbed gene"


def combination(record: Pseudobulk, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Combinations are held out in all groups, with none, some or all of their genes seen in training.

    Genes that take part in combinations are dealt, and what has a test gene (else a validation gene) is test
    (validation). Combinations of training genes alone are dealt too, so that some are tested with all genes seen.
    Single perturbations of held-out genes are ``unused``; all others train. See ``genes_seen``.
    """
    targets = [tuple(sorted(set(genes))) for genes in record.targets]
    combined = [genes for genes in targets if len(genes) > 1]
    if not combined:
        raise InputError(
            f"{record.name} has no condition that perturbs several genes, so there are no combinations to hold out; "
            "use split=unseen_perturbation"
        )
    names = np.array(["+".join(genes) for genes in combined])
    of_set = _assigned(record, names, "combinations", n_folds, fold, seed)
    of_gene = _assigned(record, np.array([gene for genes in combined for gene in genes]), "genes", n_folds, fold, seed)
    part = []
    for genes in targets:
        strictest = _strictest([of_gene.get(gene, "train") for gene in genes])
        if len(genes) == 1:
            part.append("train" if strictest == "train" else "unused")
        else:
            part.append(of_set["+".join(genes)] if strictest == "train" else strictest)
    return np.array(part), perturbed_genes(record), "perturbed gene"


def genes_seen(record: Pseudobulk, train: Pseudobulk) -> np.ndarray:
    """How many of each condition's genes are perturbed in ``train``, alone or with others, int64 [n]."""
    seen = {gene for genes in train.targets for gene in genes}
    return np.array([len(seen.intersection(genes)) for genes in record.targets], dtype=np.int64)


def cold_line(record: Pseudobulk, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A cell line (else a group, such as a cell type) is held out with all its conditions; its controls stay inputs."""
    lines = record.column(LINE) if LINE in record.covariates else record.group.astype(str)
    if set(lines.tolist()) == {EVERYWHERE}:
        raise InputError(
            f"{record.name}: controls are paired by nothing, so there are no lines to hold out; set "
            "data.record.covariates, e.g. [cell_line]"
        )
    part_of = _assigned(record, lines, "cell lines", n_folds, fold, seed)
    part = np.array([part_of[line] for line in lines.tolist()])
    if len(np.unique(lines[part == "test"])) >= ENOUGH_UNITS:
        return part, lines, "cell line"
    if len(np.unique(record.perturbation)) >= ENOUGH_UNITS:
        return part, perturbed_genes(record), "perturbed gene"
    return part, record.sample_id.astype(str), "condition"


def perturbed_genes(record: Pseudobulk) -> np.ndarray:
    """The genes that each condition perturbs, its clusters: [n], or [n, K] where some perturb several."""
    return padded([tuple(dict.fromkeys(genes)) for genes in record.targets])


def _strictest(parts: list[str]) -> str:
    return "test" if "test" in parts else "val" if "val" in parts else "train"


def _assigned(record: Pseudobulk, units: np.ndarray, what: str, n_folds: int, fold: int, seed: int) -> dict[str, str]:
    """Unit -> part; folds that can't be filled are an error that says which can."""
    n_units = len(np.unique(units))
    if n_units < 3:
        raise InputError(
            f"{record.name} has {n_units} of the {what} to hold out; training, validation and test need one each, so "
            "at least 3: use another split, or more data"
        )
    if n_units < n_folds:
        raise InputError(
            f"{record.name}: {n_units} {what} can't fill {n_folds} folds; set split.n_folds={n_units} or fewer"
        )
    return assign_folds(units, n_folds, fold, seed)


SPLITS = SplitMethods(
    "single cells",
    lambda record: (perturbed_genes(record), "perturbed gene"),  # a perturbation in several lines is one cluster
    {"unseen_perturbation": unseen_perturbation, "combination": combination, "cold_cell": cold_line},
)
