"""Labels of perturbations: which genes one names, and by which name."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from torchcell.data.measured_genes import MeasuredGenes

JOIN = "+"
"""Between the genes of a label that names several."""


def genes_of(label: str) -> tuple[str, ...]:
    """The genes that a label names, e.g. ``KLF1+MAP2K6``."""
    return tuple(label.split(JOIN))


def read_labels(labels: np.ndarray, controls: Collection[str]) -> tuple[np.ndarray, dict[str, int]]:
    """Labels [n] as one names perturbations here: without controls, genes in order; and how many that changed.

    Args:
        labels: As a file has them.
        controls: Parts of a label that are no genes.
    """
    perturbed = without_controls(labels, controls)
    beside, spelled = np.unique(labels[labels != perturbed]), np.unique(perturbed)
    perturbed = ordered(perturbed)
    counts = {
        "labels that name a control beside a gene": len(beside),
        "labels with the genes of another one in another order": len(spelled) - len(np.unique(perturbed)),
    }
    return perturbed, {what: n for what, n in counts.items() if n}


def without_controls(labels: np.ndarray, controls: Collection[str]) -> np.ndarray:
    """Labels [n] without a control's among the genes, ``KLF1`` for ``KLF1+ctrl``; one of controls alone stays."""
    return _each(labels, lambda label: JOIN.join(g for g in genes_of(label) if g not in controls) or label)


def as_measured(labels: np.ndarray, measured: MeasuredGenes) -> np.ndarray:
    """Labels [n] whose genes bear the names under which they are measured; a gene that is not measured keeps its."""
    return _each(labels, lambda label: JOIN.join(measured.find(gene) or gene for gene in genes_of(label)))


def ordered(labels: np.ndarray) -> np.ndarray:
    """Labels [n] with their genes in the order of the alphabet, in which ``A+B`` and ``B+A`` are one perturbation."""
    return _each(labels, in_order)


def in_order(label: str) -> str:
    """One label with its genes in the order of the alphabet."""
    return JOIN.join(sorted(genes_of(label)))


def _each(labels: np.ndarray, change: Callable[[str], str]) -> np.ndarray:
    """Labels changed one by one, a repeated one once [n]."""
    different, row = np.unique(labels.astype(str), return_inverse=True)
    return np.array([change(label) for label in different.tolist()], dtype=str)[row]
