"""A user's own cells: an h5ad file or zarr folder, in memory or left on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from torchcell.data.backed import expression, keys_of, layers_of, matrix_at, opened
from torchcell.data.cells import CellExpression, Scale, ScaleError
from torchcell.data.checks import column
from torchcell.data.conditions import Conditions
from torchcell.data.errors import InputError, some
from torchcell.data.matrices import RAW, dense
from torchcell.data.measured_genes import alias_table
from torchcell.data.normalise import LIBRARY
from torchcell.data.pairing import groups_of, stratified
from torchcell.data.perturbation_labels import ControlLabels

if TYPE_CHECKING:
    import pandas as pd


FEW = 256
"""Cells by which a matrix is known as counts."""


def cells_file(
    path: str | Path,
    scale: Scale,
    control: ControlLabels | None = None,
    columns: Mapping[str, str] | None = None,
    covariates: Sequence[str] = (),
    layer: str | None = None,
    gene_column: str | None = None,
    aliases: str | Path | None = None,
    library: float | int = LIBRARY,
    max_cells: int | None = None,
    min_cells: int = 10,
    few_cells: Literal["error", "drop"] = "error",
    backed: bool = False,
    seed: int = 0,
    name: str | None = None,
) -> Conditions:
    """Read cells, log-normalise counts, and group the cells by perturbation and covariates.

    Args:
        path: The h5ad file or zarr folder.
        scale: What its values are, ``counts`` or ``lognorm``; checked, never guessed.
        control: Label of the control cells, or several, whatever their case; without it ``obs`` must hold the flag
            ``is_control``.
        columns: Internal name (``perturbation``, ``is_control``, or one of ``covariates``) -> name in ``obs``.
        covariates: What a perturbed cell and its controls share, e.g. ``[cell_line, batch]``; none: nothing.
        layer: Take the values from this layer instead of ``X``; ``raw``: those and the genes of ``adata.raw``.
        gene_column: Column of ``var`` with the gene symbols; by default the names of ``var``.
        aliases: Table of ``alias`` and ``gene``, so that a perturbed gene is found among the measured ones by an old
            symbol too; several aliases in a cell are joined by ``;``. None: symbols are compared without case.
        library: Counts a cell is scaled to before the logarithm; unread for ``lognorm``.
        max_cells: Read this many cells, chosen at random, each condition in its share.
        min_cells: Cells that a condition needs.
        few_cells: What to do with a condition of fewer: ``error`` or ``drop``.
        backed: Leave the values on disk and read the cells of a batch when they are asked for.
        seed: Of the choice of cells and of the halves of the controls.
        name: Of the record; by default the file's.

    Raises:
        InputError: A file that can't be read, missing columns or layers, values that are not what ``scale`` says,
            a condition with too few cells, a group without control cells.
    """
    cells = read_cells(path, scale, control, columns, covariates, layer, gene_column, name, backed)
    cells = cells.named_as_measured(alias_table(aliases))
    if max_cells is not None:
        keys = np.char.add(np.char.add(cells.perturbation.astype(str), "|"), groups_of(cells, covariates))
        cells = _thinned(cells, keys, stratified(keys, max_cells, seed), max(min_cells, 2), few_cells)
    if not backed:
        cells = replace(cells, X=cells.X[:])
    cells = validated(cells, path, layer).lognorm(library)
    return Conditions.from_cells(cells, covariates, min_cells, few_cells, seed)


def read_cells(
    path: str | Path,
    scale: Scale,
    control: ControlLabels | None = None,
    columns: Mapping[str, str] | None = None,
    covariates: Sequence[str] = (),
    layer: str | None = None,
    gene_column: str | None = None,
    name: str | None = None,
    backed: bool = False,
) -> CellExpression:
    """The cells of a file, their expression left on disk; arguments as in ``cells_file``.

    Expression that is stored by columns is read, or, if it must stay on disk (``backed``), refused.
    """
    key, about_genes = keys_of(path, layer)
    obs, var = annotation(path, "obs"), annotation(path, about_genes)
    X, name = expression(path, key, backed), name or Path(path).stem
    genes = var.index.to_numpy() if gene_column is None else column(f"{name} (var)", var, gene_column)
    return CellExpression.from_obs(X, obs, genes, scale, columns, control, covariates, name)


def validated(cells: CellExpression, path: str | Path, layer: str | None) -> CellExpression:
    """The cells, checked; where they are not what ``scale`` says, the error names the matrices that hold counts."""
    try:
        return cells.validate()
    except ScaleError as error:
        every = dict.fromkeys((*layers_of(path), RAW, None))
        choices = [one for one in every if one != layer and _holds_counts(path, one)]
        if not choices:
            raise
        named = " or ".join("layer=null (X)" if one is None else f"layer={one}" for one in choices)
        raise InputError(f"{error}; this file holds counts too: {named}") from None


def _holds_counts(path: str | Path, layer: str | None) -> bool:
    """Whether the first cells of a matrix are whole numbers, one above 1; a matrix that is not there is none."""
    key = keys_of(path, layer)[0]
    if key not in opened(path):
        return False
    values = dense(matrix_at(path, key)[:FEW])
    return bool((values >= 0).all() and (values == np.floor(values)).all() and values.max(initial=0) > 1)


def _thinned(
    cells: CellExpression, keys: np.ndarray, kept: np.ndarray, min_cells: int, few_cells: Literal["error", "drop"]
) -> CellExpression:
    """The cells at ``kept``; a condition (``keys`` [n]) that thereby has too few is refused, or dropped and counted."""
    names, row, count = np.unique(keys, return_inverse=True, return_counts=True)
    left = np.bincount(row[kept], minlength=len(names))
    thin = (count >= min_cells) & (left < min_cells)
    thin[row[cells.is_control]] = False
    if not thin.any():
        return cells.subset(kept)
    if few_cells == "error":
        told = [f"{names[i]} ({left[i]} of {count[i]})" for i in np.flatnonzero(thin).tolist()]
        raise InputError(
            f"{cells.name}: max_cells={len(kept)} leaves fewer than min_cells={min_cells} cells of {len(told)} "
            f"condition(s): {some(told)}; set max_cells higher, or min_cells lower"
        )
    lost = {f"conditions of which max_cells={len(kept)} leaves fewer than {min_cells} cells": int(thin.sum())}
    return replace(cells.subset(kept[~thin[row[kept]]]), lost={**cells.lost, **lost})


def annotation(path: str | Path, key: str) -> pd.DataFrame:
    """``obs`` or ``var`` of an h5ad file or zarr folder; a damaged file is an error that says so."""
    from anndata.io import read_elem

    root = opened(path)
    if key not in root:
        raise InputError(f"{path} is no AnnData file: it has no table {key!r}")
    try:
        return read_elem(root[key]) if hasattr(root[key], "keys") else _table_of_old(path, key)
    except Exception as error:  # anndata wraps what HDF5 and zarr raise in errors of its own
        raise InputError(f"{path} is damaged: its table {key} can't be read ({error}); copy it again") from error


def _table_of_old(path: str | Path, key: str) -> pd.DataFrame:
    """A table as anndata wrote it before 0.7: one structured array, its categories elsewhere in the file."""
    import warnings

    import anndata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file's age is no news to the user
        adata = anndata.read_h5ad(path, backed="r")
    return adata.raw.var if key == "raw/var" else getattr(adata, key)
