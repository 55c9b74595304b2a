"""A user's own drug response as an h5ad file, with matched controls or with control wells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchcell.data.checks import column, flags
from torchcell.data.drug_identity import one_structure
from torchcell.data.errors import InputError
from torchcell.data.h5ad import read_h5ad
from torchcell.data.matrices import dense, layer_of
from torchcell.data.plate_controls import line_plates, matched_controls
from torchcell.data.response import COLUMNS, Response
from torchcell.data.response_columns import TreatmentColumns

if TYPE_CHECKING:
    import anndata

FLAG = "is_control"


def response_file(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    cell_lines: str | Sequence[str] | None = None,
    match: str = "centroid",
    control_layer: str = "control",
    layer: str | None = None,
    keep: Sequence[str] = (),
    conflicting_smiles: str = "error",
    seed: int = 0,
    name: str | None = None,
) -> Response:
    """Read an h5ad file: ``X`` expression, ``obs`` perturbation, cell_line, dose_value, time, plate.

    Doses and times become µM and h by the units in their cells or in ``dose_unit`` and ``time_unit``; see
    ``response_columns`` for the names that are understood.

    The controls are the layer ``control_layer`` where the file has it, as ``import-gct`` writes; else the wells that
    ``obs`` flags as ``is_control``, matched within each plate and line. Control wells are no samples.

    Args:
        path: The file.
        columns: Internal name -> name in ``obs``, for those that differ; also ``is_control``, dose_unit, time_unit,
            smiles, inchikey, source.
        cell_lines: One line, several, or all.
        match: ``centroid`` or ``paired``, see ``plate_controls``; plays no part where there is a layer of controls.
        control_layer: Layer with each sample's control.
        layer: Take the expression from this layer instead of ``X``; ``raw``: that and the genes of ``adata.raw``.
        keep: Further columns of ``obs`` to hold, e.g. mechanism of action.
        conflicting_smiles: Of a drug with SMILES of several molecules: ``error`` where structures are needed, or take
            the ``first`` row's or that of the ``majority`` of its rows.
        seed: Of the pairs.
        name: Of the record; by default the file's.

    Raises:
        InputError: No such file, neither a layer nor a flag of controls, a plate without control wells, a missing or
            negative dose; the message names the samples, plates or columns.
    """
    name, columns = name or Path(path).stem, dict(columns or {})
    adata = _with_layer(read_h5ad(path), layer, path)
    flag = columns.pop(FLAG, FLAG)
    flagged = flags(name, flag, column(name, adata.obs, flag)) if flag in adata.obs or flag != FLAG else None
    if control_layer not in adata.layers:
        if flagged is None:
            raise InputError(
                f"{path} tells no controls: it has neither a layer {control_layer!r} (layers: {list(adata.layers)}) "
                f"nor a column {FLAG!r} in obs; add one, or name yours with columns: {{{FLAG}: NAME}}"
            )
        found = TreatmentColumns(name, adata.obs, columns, adata.obs_names.to_numpy().astype(str))
        found.refuse_missing(COLUMNS)
        plates = line_plates(found.texts("plate"), found.texts("cell_line"))
        adata.layers[control_layer] = matched_controls(
            dense(adata.X), plates, flagged, match, seed, f"flag its wells in obs[{flag!r}]"
        )
    if flagged is not None:
        adata = adata[~flagged].copy()
    record = one_structure(Response.from_anndata(adata, columns, name, control_layer, keep), conflicting_smiles)
    return record.on_lines(cell_lines).validate()


def _with_layer(adata: anndata.AnnData, layer: str | None, path: str | Path) -> anndata.AnnData:
    """The same samples with the values of ``layer`` as ``X``."""
    import anndata
    import pandas as pd

    values, genes = layer_of(adata, layer, path)
    if np.array_equal(genes, adata.var_names.to_numpy().astype(str)):
        adata.X = values
        return adata
    return anndata.AnnData(values, obs=adata.obs, var=pd.DataFrame(index=genes))  # layers are over other genes
