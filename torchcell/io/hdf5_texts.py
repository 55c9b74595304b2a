"""How many bytes the texts of an HDF5 data set take, counted before any of them is read.

A text of variable length stands once in a file, and any number of cells may point at it, 16 bytes each: a file of some
megabytes can so need terabytes. Each cell holds the length of its text, and only these are looked at.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchcell.io.ceiling import LETTER

if TYPE_CHECKING:
    import h5py

CELL = 16
"""Bytes of a cell that points at a text: its length, where it stands, and its number there."""
GZIP, SHUFFLE = 1, 2
"""Filters of HDF5, by their numbers, that are undone here."""


def has_texts(kind: np.dtype) -> bool:
    """Whether values of a type, or of a part of it, are of variable length."""
    if kind.fields is not None:
        return any(has_texts(part[0]) for part in kind.fields.values())
    return kind.hasobject if kind.subdtype is None else has_texts(kind.subdtype[0])


def bytes_of_texts(data: h5py.Dataset, path: Path, most: int) -> int:
    """Bytes of all texts of a data set, or of other values of variable length; more than ``most`` where they are more.

    Names end in an array, where each is as wide as the longest: it counts where it is larger.

    Args:
        data: Open for reading, whose cells are known to fit into memory.
        path: Of its file.
        most: Beyond it no more is counted.
    """
    import h5py

    stored, n = path.stat().st_size, math.prod(data.shape or ())
    if n * stored * LETTER <= most:  # no text is longer than the file
        return n * stored
    base = h5py.check_vlen_dtype(data.dtype)
    is_text = h5py.check_string_dtype(data.dtype) is not None
    width = 1 if is_text else base.itemsize if base is not None else 0
    blocks = _cells(data, path) if width and not data.file.userblock_size else None
    lengths = map(_lengths, blocks) if blocks is not None else _read(data, max(most // stored, 1))
    total, longest = 0, 0
    for block in lengths:
        total, longest = total + max(width, 1) * int(block.sum()), max(longest, int(block.max(initial=0)))
        if total > most:
            break
    return max(total, n * longest * LETTER if is_text else 0)


def _cells(data: h5py.Dataset, path: Path) -> Any:
    """The cells of a data set as bytes [n, width], by chunks; none where they are stored in a way that is not known."""
    if data.chunks is None:
        offset, n = data.id.get_offset(), math.prod(data.shape)
        if offset is None:
            return None
        width = data.id.get_storage_size() // n
        return [np.fromfile(path, np.uint8, n * width, offset=offset).reshape(n, width)]
    made = data.id.get_create_plist()
    filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
    if not set(filters) <= {GZIP, SHUFFLE}:
        return None
    found: list[Any] = []
    data.id.chunk_iter(found.append)
    return (_plain(data, one, filters) for one in found)


def _plain(data: h5py.Dataset, chunk: Any, filters: list[int]) -> np.ndarray:
    """The cells of a chunk, its filters undone, the last first."""
    n = math.prod(data.chunks)
    skipped, raw = data.id.read_direct_chunk(chunk.chunk_offset)
    for place in reversed(range(len(filters))):
        if skipped >> place & 1:
            continue
        if filters[place] == GZIP:
            raw = zlib.decompressobj().decompress(raw, CELL * n)
        else:
            raw = np.frombuffer(raw, np.uint8).reshape(-1, n).T.tobytes()
    return np.frombuffer(raw, np.uint8).reshape(n, -1)


def _lengths(cells: np.ndarray) -> np.ndarray:
    """What cells [n, width] say of the lengths of their texts, int64 [n]."""
    return np.ascontiguousarray(cells[:, :4]).view("<u4").ravel().astype(np.int64)


def _read(data: h5py.Dataset, step: int) -> Iterator[np.ndarray]:
    """The same by reading a few cells at a time; a matrix of texts that are stored so has too many."""
    if data.ndim != 1:
        yield np.array([2**62])
        return
    for start in range(0, len(data), step):
        found = data[start : start + step].tolist()
        yield np.array([len(one if isinstance(one, bytes) else str(one)) for one in found], dtype=np.int64)
