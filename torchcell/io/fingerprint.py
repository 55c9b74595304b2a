"""What data are known by: a hash over values, whatever holds them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from jaxtyping import Int, UInt64
from scipy import sparse

from torchcell.io.categorical import Categorical

NOT_VALUES = ("name", "dropped", "notes", "control_words", "known", "checked")
"""Fields of a record that no result depends on: names of it and of its controls, what was left out, assumed, or found
out about the other fields."""
CHUNK_VALUES = 2**22
"""Values that are converted at a time."""
BLOCK = 2**14
"""Texts that are hashed at a time, so that they stay in the processor's cache."""


def record_fingerprint(record: Any, leave_out: tuple[str, ...] = NOT_VALUES) -> str:
    """Fingerprint of a dataclass over all its fields but those of ``leave_out``."""
    return fingerprint({f.name: getattr(record, f.name) for f in fields(record) if f.name not in leave_out})


def fingerprint(value: Any) -> str:
    """sha256 over a value and all that it holds, in hexadecimal; the same in every process and on every machine.

    Arrays go by their numbers, whatever their width: float32 and float64, ``<U3`` and ``<U8`` are alike where all
    values are. Sparse matrices go by their nonzero values, whatever their format, and a matrix on disk
    (``BackedMatrix``) like the same one in memory; see ``matrix_fingerprint``. An array that shows one value many times
    (a stride of 0) differs from one that stores it many times.

    Args:
        value: Numbers, texts, None, arrays, SciPy matrices, what has a method ``fingerprint``, and mappings, lists and
            tuples of these. The order of a mapping's keys plays no part.

    Raises:
        TypeError: Anything else, whose text could tell less than it holds.
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def matrix_fingerprint(matrix: Any) -> str:
    """Fingerprint of a matrix [n, G] by its nonzero values: dense, CSR, CSC and COO of the same numbers are alike."""
    return chunks_fingerprint(row_chunks(matrix), matrix.shape)


def chunks_fingerprint(chunks: Iterator[Any], shape: tuple[int, ...]) -> str:
    """The same for a matrix that comes in chunks of rows, of any size; each dense or sparse."""
    digest = MatrixDigest()
    for chunk in chunks:
        digest.add(chunk)
    return digest.fingerprint(shape)


class MatrixDigest:
    """The same for a matrix whose rows pass by."""

    def __init__(self) -> None:
        self._parts = [hashlib.sha256() for _ in range(3)]

    def add(self, chunk: Any) -> None:
        """The next rows, dense or sparse."""
        rows = _canonical(chunk)
        stored = (np.diff(rows.indptr), rows.indices, _doubles(rows.data))
        for digest, values, kind in zip(self._parts, stored, ("<i8", "<i8", "<f8"), strict=True):
            digest.update(np.ascontiguousarray(values, dtype=kind).data)

    def fingerprint(self, shape: tuple[int, ...]) -> str:
        """Of all rows that came."""
        return fingerprint([*shape, *(digest.hexdigest() for digest in self._parts)])


def row_chunks(matrix: Any) -> Iterator[Any]:
    """The rows of a matrix in order, as many at a time as ``CHUNK_VALUES`` allows."""
    rows = matrix.tocsr() if sparse.issparse(matrix) else matrix
    step = min(max(CHUNK_VALUES // max(matrix.shape[1], 1), 64), 2**16)
    for start in range(0, matrix.shape[0], step):
        yield rows[start : start + step]


def _canonical(chunk: Any) -> sparse.csr_matrix:
    """CSR with sorted columns, no value twice and no stored zero."""
    csr = sparse.csr_matrix(chunk, copy=True)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr


def _feed(digest: Any, value: Any) -> None:
    if callable(getattr(value, "fingerprint", None)):
        _tag(digest, "fingerprint", value.fingerprint())
    elif value is None or isinstance(value, bool | np.bool_ | int | np.integer):
        _tag(digest, "plain", None if value is None else int(value), type(value) in (bool, np.bool_))
    elif isinstance(value, float | np.floating):
        digest.update(b"number" + struct.pack("<d", _doubles(np.array([value]))[0]))
    elif isinstance(value, str):
        _tag(digest, "text", len(value.encode()))
        digest.update(value.encode())
    elif isinstance(value, Mapping):
        _tag(digest, "mapping", len(value))
        for name in sorted(value):
            _feed(digest, name)
            _feed(digest, value[name])
    elif isinstance(value, list | tuple):
        _tag(digest, "list", len(value))
        for one in value:
            _feed(digest, one)
    elif sparse.issparse(value):
        _tag(digest, "matrix", matrix_fingerprint(value))
    elif isinstance(value, np.ndarray):
        _feed_array(digest, value)
    elif isinstance(value, Categorical):
        _feed_array(digest, np.asarray(value))
    else:
        raise TypeError(f"no fingerprint of a {type(value).__name__}: give it a method fingerprint()")


def _tag(digest: Any, *words: Any) -> None:
    digest.update((" ".join(map(str, words)) + "\n").encode())


def _feed_array(digest: Any, values: np.ndarray) -> None:
    if values.dtype == object:
        if not all(isinstance(value, str) for value in values.flat):
            _feed(digest, ["objects", *values.shape, *values.ravel().tolist()])
            return
        values = values.astype(str)
    repeated = [step == 0 and size > 1 for step, size in zip(values.strides, values.shape, strict=True)]
    _tag(digest, "array", values.shape, repeated if any(repeated) else "")
    values = values[tuple(slice(1) if once else slice(None) for once in repeated)]
    if values.dtype.kind == "U":
        _feed_texts(digest, values.ravel())
        return
    if values.dtype.kind not in "fiub":
        raise TypeError(f"no fingerprint of an array of {values.dtype}")
    kind = "<f8" if values.dtype.kind == "f" else "<i8"
    _tag(digest, kind if values.dtype.kind != "b" else "bool")
    rows = values.reshape(1) if values.ndim == 0 else values
    step = max(CHUNK_VALUES // max(int(np.prod(rows.shape[1:])), 1), 1)
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        digest.update(np.ascontiguousarray(_doubles(chunk) if kind == "<f8" else chunk, dtype=kind))


def _feed_texts(digest: Any, values: np.ndarray) -> None:
    """Texts [n] at the width of the longest, which alone depends on no dtype."""
    codes = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).view("<u4").reshape(len(values), -1)
    used = np.flatnonzero((codes != 0).any(axis=0)) if len(values) else np.empty(0, dtype=np.int64)
    width = int(used[-1]) + 1 if len(used) else 0
    _tag(digest, "texts", width)
    digest.update(np.ascontiguousarray(codes[:, :width]))


def _doubles(values: np.ndarray) -> np.ndarray:
    """float64 with one kind of zero and one kind of NaN."""
    doubles = np.asarray(values, dtype=np.float64) + 0.0
    doubles[np.isnan(doubles)] = np.nan
    return doubles


def text_hashes(texts: np.ndarray) -> UInt64[np.ndarray, " n"]:
    """A hash of each text [n]; equal texts have equal ones."""
    texts = np.ascontiguousarray(texts, dtype=str)
    if not texts.size or not texts.dtype.itemsize:
        return np.zeros(len(texts), dtype=np.uint64)
    letters = texts.view(np.uint32).reshape(len(texts), -1)
    found = np.zeros(len(texts), dtype=np.uint64)
    for start in range(0, len(texts), BLOCK):
        own = found[start : start + BLOCK]
        for letter in letters[start : start + BLOCK].T:
            own[:] = _mixed(own + letter)
    return found


def sums_of_hashes(members: Int[np.ndarray, " M"], ptr: Int[np.ndarray, " n1"]) -> UInt64[np.ndarray, " n"]:
    """A hash of each set of members, whatever their order; set i is ``members[ptr[i]:ptr[i + 1]]``."""
    found = np.empty(len(ptr) - 1, dtype=np.uint64)
    for start in range(0, len(found), BLOCK):
        ends = ptr[start : start + BLOCK + 1]
        total = np.zeros(ends[-1] - ends[0] + 1, dtype=np.uint64)
        np.cumsum(_mixed(members[ends[0] : ends[-1]].astype(np.uint64)), out=total[1:])
        ends = ends - ends[0]
        found[start : start + BLOCK] = total[ends[1:]] - total[ends[:-1]]  # sums go round at 2^64, as differences do
    return found


def may_repeat(hashes: UInt64[np.ndarray, " n"] | Int[np.ndarray, " n"]) -> bool:
    """Whether two are equal; if not, neither are what they are hashes of."""
    ordered = np.sort(hashes)
    return bool((ordered[1:] == ordered[:-1]).any())


def _mixed(values: np.ndarray) -> np.ndarray:
    """Numbers spread over all 64 bits (the finalizer of SplitMix64, Steele et al. 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
