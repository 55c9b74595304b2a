"""CRISPR knock-outs of 25 genes in THP-1 cells, raw counts of 299 genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from torchcell.data.cells import CellExpression
from torchcell.data.checks import flags
from torchcell.data.conditions import Conditions
from torchcell.data.h5ad import read_h5ad
from torchcell.data.sources import fetch

CONTROL = "control"
"""Label of the cells with one of nine non-targeting guides."""
GUIDE = "NTg"
"""Beginning of the names of these guides."""


def papalexi_cells(confident: bool = True) -> CellExpression:
    """Counts of 20,729 cells, or of the 16,192 whose guide is certain; covariates ``batch`` and ``guide``.

    Args:
        confident: Leave out cells with an uncertain guide, which may carry another perturbation than the label says.

    Raises:
        InputError: The file can't be had or is damaged.

    Source: Papalexi et al., Nature Genetics 2021, doi:10.1038/s41588-021-00778-2.
    """
    adata = read_h5ad(*fetch("papalexi2021").values())
    columns = {"batch": "bio_rep", "guide": "grna"}
    cells = CellExpression.from_anndata(
        adata, "counts", columns, CONTROL, ("batch", "guide"), "papalexi2021"
    ).validate()
    if not confident:
        return cells
    certain = flags("papalexi2021", "confident", adata.obs["confident"].to_numpy())
    return replace(cells.subset(certain), lost={**cells.lost, "cells with an uncertain guide": int((~certain).sum())})


def papalexi2021(
    confident: bool = True,
    covariates: Sequence[str] = (),
    library: float | int = 200.0,
    min_cells: int = 10,
    seed: int = 0,
) -> Conditions:
    """The cells log-normalised, as 25 conditions; ``covariates=[batch]`` pairs controls within each replicate.

    Args:
        confident: See ``papalexi_cells``.
        covariates: What a cell and its controls share.
        library: Counts a cell is scaled to; these 299 genes have 186 in the median cell.
        min_cells: Cells that a condition needs; smaller ones are left out and counted.
        seed: Of the halves of the controls.
    """
    return Conditions.from_cells(papalexi_cells(confident).lognorm(library), covariates, min_cells, "drop", seed)


def non_targeting(cells: CellExpression) -> np.ndarray:
    """The guides of the control cells, sorted."""
    return np.unique(cells.covariates["guide"][cells.is_control])
