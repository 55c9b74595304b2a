"""Reads h5ad files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torchcell.io.errors import InputError
from torchcell.io.paths import located

if TYPE_CHECKING:
    import anndata


def read_h5ad(path: str | Path) -> anndata.AnnData:
    """An h5ad file in memory; no such file and no HDF5 are errors that say so."""
    import anndata

    path = located(path)
    try:
        return anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} can't be read as h5ad: {error}") from error
