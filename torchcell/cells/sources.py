"""Public single-cell screens: Kang 2018, Norman 2019 with McFaline-Figueroa 2024, Papalexi 2021."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import CellExpression
from torchcell.cells.table import read_cells
from torchcell.io.categorical import Categorical
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError, flags, some
from torchcell.io.h5ad import read_h5ad
from torchcell.io.sources import fetch

STIMULUS = "IFN-beta"
"""Our label of the stimulated cells; a protein that is given, no gene that is perturbed."""


def kang_cells() -> CellExpression:
    """1,975 log-normalized cells, 1,039 of them stimulated; covariate ``cell_type``.

    Raises:
        InputError: The file can't be had or is damaged.

    Source: Kang et al., Nature Biotechnology 2018, doi:10.1038/nbt.4042.
    """
    (path,) = fetch("kang2018").values()
    columns = {"perturbation": "condition"}
    cells = read_cells(path, "lognorm", "control", columns, ("cell_type",), name="kang2018")
    label = Categorical.of(np.where(cells.is_control, "control", STIMULUS))
    return replace(cells, X=cells.X[:], perturbation=label).validate()


@configurable
def kang2018(covariates: Sequence[str] = ("cell_type",), min_cells: int = 10, seed: int = 0) -> Pseudobulk:
    """One condition a cell type, beside the untreated cells of the type.

    Args:
        covariates: What a cell and its controls share.
        min_cells: Cells that a condition needs; smaller ones are left out and counted.
        seed: Of the halves of the controls.
    """
    return Pseudobulk.from_cells(kang_cells(), covariates, min_cells, "drop", seed)


NORMAN_LINE = "K562"
COLUMNS = {"cell_line": "cell_type", "modality": "perturbation_type", "study": "dataset"}


def norman_mcfaline_cells() -> CellExpression:
    """5,961 log-normalized cells over 500 genes; covariates ``cell_line``, ``modality`` and ``study``.

    K562 cells carry CRISPR activation (Norman et al. 2019), the three other lines interference (McFaline-Figueroa et
    al. 2023): one gene's label means opposite things in the two. One of the 32 perturbed genes is measured.

    Raises:
        InputError: The file can't be had or is damaged.

    Sources: doi:10.1126/science.aax4438, doi:10.1016/j.xgen.2023.100487.
    """
    adata = read_h5ad(*fetch("norman_mcfaline").values())
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).replace("k562", NORMAN_LINE)
    return CellExpression.from_anndata(
        adata, "lognorm", COLUMNS, "control", tuple(COLUMNS), "norman_mcfaline"
    ).validate()


@configurable
def norman_mcfaline(
    cell_lines: str | Sequence[str] | None = None,
    covariates: Sequence[str] = ("cell_line",),
    min_cells: int = 10,
    seed: int = 0,
) -> Pseudobulk:
    """Conditions of one line, of several or of all; controls of the same line, 100 each.

    Args:
        cell_lines: Of K562, A172, T98G and U87MG.
        covariates: What a cell and its controls share.
        min_cells: Cells that a condition needs; smaller ones are left out and counted.
        seed: Of the halves of the controls.
    """
    cells = norman_mcfaline_cells()
    held = cells.covariates["cell_line"].names.tolist()
    wanted = held if cell_lines is None else [cell_lines] if isinstance(cell_lines, str) else list(cell_lines)
    lacking = [line for line in wanted if line not in held]
    if lacking or not wanted:
        raise InputError(f"{cells.name}: no cell line {some(lacking)}; the lines are {', '.join(held)}")
    cells = cells.subset(cells.covariates["cell_line"].isin(wanted))
    return Pseudobulk.from_cells(cells, covariates, min_cells, "drop", seed)


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
    return replace(
        cells.subset(certain), dropped={**cells.dropped, "cells with an uncertain guide": int((~certain).sum())}
    )


@configurable
def papalexi2021(
    confident: bool = True,
    covariates: Sequence[str] = (),
    library: float | int = 200.0,
    min_cells: int = 10,
    seed: int = 0,
) -> Pseudobulk:
    """The cells log-normalized, as 25 conditions; ``covariates=[batch]`` pairs controls within each replicate.

    Args:
        confident: See ``papalexi_cells``.
        covariates: What a cell and its controls share.
        library: Counts a cell is scaled to; these 299 genes have 186 in the median cell.
        min_cells: Cells that a condition needs; smaller ones are left out and counted.
        seed: Of the halves of the controls.
    """
    return Pseudobulk.from_cells(papalexi_cells(confident).lognorm(library), covariates, min_cells, "drop", seed)


def non_targeting(cells: CellExpression) -> np.ndarray:
    """The guides of the control cells, sorted."""
    guides: np.ndarray = cells.covariates["guide"][cells.is_control].names
    return guides
