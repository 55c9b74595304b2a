"""Genes ranked by what training cells show: variability, response to perturbation, being perturbed."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from torchcell.data.cell_moments import moments
from torchcell.data.conditions import Conditions
from torchcell.data.errors import InputError
from torchcell.data.threads import threads_kept

LOGNORM_FLAVORS = ("seurat", "cell_ranger")
COUNT_FLAVORS = ("seurat_v3", "seurat_v3_paper", "pearson_residuals")
"""Ways to find highly variable genes that need raw counts."""


class HighlyVariable:
    """Highly variable genes as scanpy ranks them over the training cells and their controls.

    scanpy takes all these cells in memory, sparse where they are, whether or not the record leaves them on disk.

    Args:
        quota: Genes to take; none: all.
        flavor: ``seurat`` or ``cell_ranger`` of log-normalised cells; ``seurat_v3``, ``seurat_v3_paper`` or
            ``pearson_residuals`` of raw counts.
        name: What ``genes.csv`` calls it.
    """

    order = "listed"

    def __init__(self, quota: int | None = None, flavor: str = "seurat", name: str = "highly_variable") -> None:
        self.quota, self.flavor, self.name = quota, flavor, name

    def symbols(self, train: Conditions) -> list[str]:
        """All measured genes, the most variable first; genes of no variance last.

        Raises:
            InputError: An unknown flavour, one that needs raw counts where there are none, or a missing package.
        """
        import anndata
        import scanpy

        X = self._values(train)
        adata = anndata.AnnData(X[_cells_of(train)])
        try:
            with threads_kept():
                if self.flavor == "pearson_residuals":
                    how: dict[str, Any] = {"n_top_genes": adata.n_vars, "inplace": False}
                    found = scanpy.experimental.pp.highly_variable_genes(adata, **how)
                    score = found["residual_variances"]
                else:
                    n_top = None if self.flavor in LOGNORM_FLAVORS else adata.n_vars
                    found = scanpy.pp.highly_variable_genes(adata, flavor=self.flavor, n_top_genes=n_top, inplace=False)
                    score = found["dispersions_norm" if self.flavor in LOGNORM_FLAVORS else "variances_norm"]
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise InputError(
                f"{train.name}: scanpy finds no highly variable genes of flavor {self.flavor} in {adata.n_obs} cells x "
                f"{adata.n_vars} genes ({error}); use another flavor or more cells"
            ) from error
        rank = np.nan_to_num(np.asarray(score, dtype=np.float64), nan=-np.inf)
        return train.genes[np.lexsort((train.genes, -rank))].tolist()

    def _values(self, train: Conditions) -> Any:
        if self.flavor in LOGNORM_FLAVORS:
            return train.cells.X
        if self.flavor not in COUNT_FLAVORS:
            known = [*LOGNORM_FLAVORS, *COUNT_FLAVORS]
            raise InputError(f"no flavor {self.flavor!r} of highly variable genes; the flavors are {known}")
        if train.cells.counts is None:
            raise InputError(
                f"flavor={self.flavor} needs raw counts, and {train.name} holds log-normalised values only; give "
                "a file of counts (scale: counts), or use flavor=seurat"
            )
        if self.flavor.startswith("seurat_v3") and importlib.util.find_spec("skmisc") is None:
            raise InputError(
                f"flavor={self.flavor} needs the package scikit-misc, which is not installed: pip install scikit-misc, "
                "or use flavor=seurat or pearson_residuals"
            )
        return train.cells.counts


class Responsive:
    """Genes that training perturbations move most: root mean square over conditions of Welch's t against controls.

    Args:
        quota: Genes to take; none: all.
        name: What ``genes.csv`` calls it.
    """

    order = "listed"

    def __init__(self, quota: int | None = None, name: str = "responsive") -> None:
        self.quota, self.name = quota, name

    def symbols(self, train: Conditions) -> list[str]:
        """All measured genes, the most responsive first."""
        total = np.zeros(len(train.genes))
        known: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for i, group in enumerate(train.group.tolist()):
            if group not in known:
                known[group] = _moments(train, train.control_member[train.control_ptr[i] : train.control_ptr[i + 1]])
            mean, error = _moments(train, train.members(i))
            spread = error + known[group][1]
            total += np.divide((mean - known[group][0]) ** 2, spread, out=np.zeros_like(mean), where=spread > 0)
        return train.genes[np.lexsort((train.genes, -total))].tolist()


class Perturbed:
    """The perturbed genes of the training conditions, where they are measured.

    Args:
        quota: Genes to take; none: all. What is not measured leaves its place to highly variable genes.
        name: What ``genes.csv`` calls it.
    """

    order = "listed"

    def __init__(self, quota: int | None = None, name: str = "perturbed") -> None:
        self.quota, self.name = quota, name

    def symbols(self, train: Conditions) -> list[str]:
        """Perturbed genes by name."""
        return sorted({gene for targets in train.targets for gene in targets})


def _cells_of(train: Conditions) -> np.ndarray:
    """Positions of the conditions' cells and of their controls, sorted, each once."""
    return np.unique(np.concatenate([train.member, train.control_member]))


def _moments(train: Conditions, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and squared standard error over the cells ``at``, each float64 [G]."""
    mean, variance = moments(train.cells.X, at)
    return mean, variance / max(len(at) - 1, 1)
