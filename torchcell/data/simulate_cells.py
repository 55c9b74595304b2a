"""Simulated perturb-seq: counts of single cells with planted changes per perturbation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from torchcell.data.cells import CellExpression, Scale

CONTROL = "control"
"""Label of the unperturbed cells."""
LIBRARY = 10_000.0
"""Counts per cell that ``lognorm`` scales to."""


@dataclass(frozen=True, eq=False)
class SimulatedCells:
    """Cells and the changes that were planted.

    Attributes:
        cells: The measured record.
        labels: Perturbations without the control [n_labels]; a double is ``A+B``.
        effect: Planted change of the log mean, float64 [n_labels, G]; of a double the sum of its singles.
    """

    cells: CellExpression
    labels: np.ndarray
    effect: np.ndarray


def simulate_cells(
    n_singles: int = 6,
    n_doubles: int = 2,
    n_genes: int = 40,
    cells_per_condition: int = 40,
    cell_lines: tuple[str, ...] = ("LINE1", "LINE2"),
    scale: Scale = "counts",
    seed: int = 0,
) -> SimulatedCells:
    """Knock down genes one and two at a time, in each line; Poisson counts with a depth per cell.

    A knock-down lowers its own gene by 2 in log mean and moves a fifth of the others by +-1. There are
    three times as many control cells as cells of a perturbation. Same arguments, same bytes.

    Args:
        n_singles: Perturbed genes: the first of the gene list.
        n_doubles: Pairs of them: first and second, second and third, and so on.
        n_genes: Genes measured.
        cells_per_condition: Cells per perturbation and line.
        cell_lines: Their names.
        scale: ``counts``, or ``lognorm``: log1p of counts scaled to 10,000 a cell.
        seed: Seed of everything that is drawn.
    """
    rng = np.random.default_rng(seed)
    genes = np.array([f"G{i + 1:04d}" for i in range(n_genes)])
    single = rng.choice((-1.0, 1.0), (n_singles, n_genes)) * (rng.random((n_singles, n_genes)) < 0.2)
    single[np.arange(n_singles), np.arange(n_singles)] = -2.0
    doubles = [(i, i + 1) for i in range(n_doubles)]
    effect = np.concatenate([single, *(single[[i]] + single[[j]] for i, j in doubles)])
    labels = np.array([*genes[:n_singles], *(f"{genes[i]}+{genes[j]}" for i, j in doubles)])
    condition = np.repeat(np.arange(-1, len(labels)), [3 * cells_per_condition] + [cells_per_condition] * len(labels))
    condition = np.tile(condition, len(cell_lines))
    line = np.repeat(np.arange(len(cell_lines)), len(condition) // len(cell_lines))
    batch = rng.integers(0, 2, len(condition))
    log_mean = rng.normal(1.5, 0.7, (len(cell_lines), n_genes))[line]
    log_mean = log_mean + np.concatenate([effect, np.zeros((1, n_genes))])[condition]
    depth = rng.uniform(0.6, 1.4, len(condition))
    counts = rng.poisson(depth[:, None] * np.exp(log_mean)).astype(np.float32)
    if scale == "lognorm":
        total = np.maximum(counts.sum(1, keepdims=True), 1.0)
        counts = np.log1p(counts / total * LIBRARY).astype(np.float32)
    cells = CellExpression(
        name="simulated_cells",
        X=sparse.csr_matrix(counts),
        perturbation=np.array([*labels, CONTROL])[condition],
        is_control=condition < 0,
        genes=genes,
        sample_id=np.array([f"cell{i:05d}" for i in range(len(condition))]),
        scale=scale,
        covariates={
            "cell_line": np.array(cell_lines)[line],
            "batch": np.array(["B1", "B2"])[batch],
        },
    ).validate()
    return SimulatedCells(cells, labels, effect)
