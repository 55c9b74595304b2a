"""Two studies in one file: doubles in K562 (activation) and single knock-downs in three glioblastoma lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from torchcell.data.cells import CellExpression
from torchcell.data.conditions import Conditions
from torchcell.data.errors import InputError, some
from torchcell.data.h5ad import read_h5ad
from torchcell.data.sources import fetch

NORMAN_LINE = "K562"
COLUMNS = {"cell_line": "cell_type", "modality": "perturbation_type", "study": "dataset"}


def norman_mcfaline_cells() -> CellExpression:
    """5,961 log-normalised cells over 500 genes; covariates ``cell_line``, ``modality`` and ``study``.

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


def norman_mcfaline(
    cell_lines: str | Sequence[str] | None = None,
    covariates: Sequence[str] = ("cell_line",),
    min_cells: int = 10,
    seed: int = 0,
) -> Conditions:
    """Conditions of one line, of several or of all; controls of the same line, 100 each.

    Args:
        cell_lines: Of K562, A172, T98G and U87MG.
        covariates: What a cell and its controls share.
        min_cells: Cells that a condition needs; smaller ones are left out and counted.
        seed: Of the halves of the controls.
    """
    cells = norman_mcfaline_cells()
    held = np.unique(cells.covariates["cell_line"]).tolist()
    wanted = held if cell_lines is None else [cell_lines] if isinstance(cell_lines, str) else list(cell_lines)
    lacking = [line for line in wanted if line not in held]
    if lacking or not wanted:
        raise InputError(f"{cells.name}: no cell line {some(lacking)}; the lines are {', '.join(held)}")
    cells = cells.subset(np.isin(cells.covariates["cell_line"], wanted))
    return Conditions.from_cells(cells, covariates, min_cells, "drop", seed)
