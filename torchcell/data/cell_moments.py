"""Mean and variance of genes over cells that may be on disk, and many."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from torchcell.data.cells import CHUNK, sums
from torchcell.data.matrices import summed


def moments(X: Any, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over the cells ``at``, each float64 [G]; some cells at a time, sparse ones kept sparse.

    Args:
        X: Expression [n, G]: an array, a SciPy CSR matrix or a ``BackedMatrix``.
        at: Positions of at least one cell.
    """
    at, total, squares = np.sort(at), np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for start in range(0, len(at), CHUNK):
        # In float64, for the square of the mean is taken from the mean square.
        values = summed(X[at[start : start + CHUNK]]).astype(np.float64)
        total += sums(values)
        squares += sums(values.power(2) if sparse.issparse(values) else values**2)
    mean = total / len(at)
    return mean, np.maximum(squares / len(at) - mean**2, 0.0)
