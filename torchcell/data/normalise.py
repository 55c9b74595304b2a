"""Raw counts to log-normalised expression, sparse kept sparse."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from torchcell.data.errors import InputError
from torchcell.data.matrices import summed

LIBRARY = 10_000.0
"""Counts a cell that are usual to scale to."""


def lognormalised(X: Any, library: float | int = LIBRARY) -> Any:
    """ln(1 + counts / total of the cell x library), float32, of the kind that ``X`` is.

    A cell's total is over all columns of ``X``, so normalise before genes are chosen. A cell without counts stays zero.

    Args:
        X: Counts [n, G], an array or a SciPy matrix, of which CSR is made.
        library: Counts a cell is scaled to; a given number, not a median, so that no cell depends on another.
    """
    if library <= 0:
        raise InputError(f"library={library}: the counts a cell is scaled to must be positive")
    total = np.asarray(X.sum(1), dtype=np.float64).ravel()
    factor = library / np.where(total > 0, total, 1.0)
    if not sparse.issparse(X):
        return np.log1p(np.asarray(X) * factor[:, None]).astype(np.float32)
    scaled = sparse.csr_matrix(summed(X), dtype=np.float32, copy=True)
    scaled.data = np.log1p(scaled.data * np.repeat(factor, np.diff(scaled.indptr))).astype(np.float32)
    return scaled
