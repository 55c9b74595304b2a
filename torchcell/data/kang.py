"""PBMC under interferon beta beside untreated cells, seven cell types, 6,998 genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from torchcell.data.cells import CellExpression
from torchcell.data.cells_file import read_cells
from torchcell.data.conditions import Conditions
from torchcell.data.sources import fetch

STIMULUS = "IFN-beta"
"""Our label of the stimulated cells; a protein that is given, no gene that is perturbed."""


def kang_cells() -> CellExpression:
    """1,975 log-normalised cells, 1,039 of them stimulated; covariate ``cell_type``.

    Raises:
        InputError: The file can't be had or is damaged.

    Source: Kang et al., Nature Biotechnology 2018, doi:10.1038/nbt.4042.
    """
    (path,) = fetch("kang2018").values()
    columns = {"perturbation": "condition"}
    cells = read_cells(path, "lognorm", "control", columns, ("cell_type",), name="kang2018")
    label = np.where(cells.is_control, "control", STIMULUS)
    return replace(cells, X=cells.X[:], perturbation=label).validate()


def kang2018(covariates: Sequence[str] = ("cell_type",), min_cells: int = 10, seed: int = 0) -> Conditions:
    """One condition a cell type, beside the untreated cells of the type.

    Args:
        covariates: What a cell and its controls share.
        min_cells: Cells that a condition needs; smaller ones are left out and counted.
        seed: Of the halves of the controls.
    """
    return Conditions.from_cells(kang_cells(), covariates, min_cells, "drop", seed)
