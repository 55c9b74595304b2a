"""Reads h5ad files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torchcell.io.errors import InputError
from torchcell.io.hdf5 import check_hdf5
from torchcell.io.in_memory import InMemory

if TYPE_CHECKING:
    import anndata


def read_h5ad(path: str | Path | InMemory, *, backed: bool = False) -> anndata.AnnData:
    """An h5ad file in memory, or ``backed`` on disk; no such file and no HDF5 are errors that say so."""
    import anndata

    if isinstance(path, InMemory):
        return path.content.copy()
    path = check_hdf5(path)
    try:
        return anndata.read_h5ad(path, backed="r" if backed else None)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} can't be read as h5ad: {error}") from error
