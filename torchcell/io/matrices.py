"""Matrices as other tools hold them: which one of a file is meant, each place summed, values too large named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from torchcell.io.ceiling import refuse_bomb
from torchcell.io.errors import InputError, some

if TYPE_CHECKING:
    import anndata


RAW = "raw"
"""The ``layer`` that names ``adata.raw``, unless a layer has that name; its genes are those of ``raw.var``."""
CHOOSE = "choose one with layer=NAME"
LARGEST = 1e18
"""Size up to which squares stay within float32, with room for sums."""


def summed(matrix: Any) -> Any:
    """A sparse matrix as CSR with one entry a place, its columns sorted; a dense one as it is.

    Several entries of one place are legal and mean their sum, which a logarithm of each would not be. The matrix that
    is given stays as it was.

    Args:
        matrix: An array, or a SciPy matrix of any format [n, G].
    """
    if not sparse.issparse(matrix):
        return matrix
    csr = matrix if isinstance(matrix, sparse.csr_matrix) else sparse.csr_matrix(matrix)
    if csr.has_canonical_format:
        return csr
    csr = sparse.csr_matrix((csr.data, csr.indices, csr.indptr), csr.shape, copy=True)
    csr.sort_indices()
    if not csr.has_canonical_format:
        csr = csr.astype(np.result_type(csr.dtype, np.float32))  # a sum may not fit into a short integer
        csr.sum_duplicates()
    return csr


def as_float32(matrix: Any) -> Any:
    """An array or a ``summed`` matrix as float32; a value that float32 can't hold becomes infinite."""
    with np.errstate(over="ignore"):
        if sparse.issparse(matrix):
            return summed(matrix).astype(np.float32, copy=False)
        return np.asarray(matrix, dtype=np.float32)


def dense(matrix: Any) -> np.ndarray:
    """A matrix, sparse or not, as a float32 array [n, G].

    Raises:
        InputError: A sparse one of few values that would fill the memory.
    """
    values = as_float32(matrix)
    if sparse.issparse(values):
        stored = values.data.nbytes + values.indices.nbytes + values.indptr.nbytes
        refuse_bomb(
            "a sparse matrix", 4 * int(values.shape[0]) * int(values.shape[1]), stored, f"{values.shape} as dense"
        )
    return np.asarray(values.toarray() if sparse.issparse(values) else values)


def too_large(values: np.ndarray, ids: np.ndarray, genes: np.ndarray) -> list[str]:
    """Rows of a dense matrix that hold what is not finite or larger than ``LARGEST``, each with its first such gene.

    Args:
        values: [n, G].
        ids: Names of the rows [n].
        genes: Names of the columns [G].
    """
    if not values.size:
        return []
    odd = np.flatnonzero(~((values.max(1) <= LARGEST) & (values.min(1) >= -LARGEST)))  # NaN is neither
    first = [int(np.argmin(np.abs(values[i]) <= LARGEST)) for i in odd.tolist()]
    return [f"{ids[i]} ({genes[j]}: {values[i, j]:g})" for i, j in zip(odd.tolist(), first, strict=True)]


def layer_of(
    adata: anndata.AnnData, layer: str | None, name: str | Path, remedy: str = CHOOSE
) -> tuple[Any, np.ndarray]:
    """The matrix that ``layer`` names and its genes [G], as text.

    Args:
        adata: In memory.
        layer: Name of a layer; none: ``X``; ``raw``: ``adata.raw``, unless a layer has that name.
        name: What the matrix is of, named in the error.
        remedy: What to do where it is not there.

    Raises:
        InputError: The matrix is not there; the error names those that are.
    """
    if layer is None:
        found, genes = adata.X, adata.var_names
    elif layer in adata.layers:
        found, genes = adata.layers[layer], adata.var_names
    elif layer == RAW and adata.raw is not None:
        found, genes = adata.raw.X, adata.raw.var_names
    else:
        found, genes = None, adata.var_names
    if found is None:
        raise InputError(no_layer(name, layer, list(adata.layers), adata.raw is not None, remedy))
    return found, genes.to_numpy().astype(str)


def no_layer(name: str | Path, layer: str | None, layers: Sequence[str], has_raw: bool, remedy: str = CHOOSE) -> str:
    """What an error says of a matrix that is not there."""
    held = "no X" if layer is None else f"no layer {layer!r}"
    choices = [*layers, *([RAW] if has_raw and RAW not in layers else [])]
    if not choices:
        return f"{name} holds {held}, and no layer either; write the expression to X"
    return f"{name} holds {held}; its layers are {some(choices, 12)}: {remedy}"
