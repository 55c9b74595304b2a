"""Millions of texts by array operations: between Arrow and NumPy, numbered, and hashed in sorted order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from torchcell.io.fingerprint import text_hashes

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 2**16
"""Texts that are handled at a time, so that they stay in the processor's cache."""
_BLANK = np.array([i > 127 or chr(i).isspace() for i in range(256)])
"""Bytes that a blank begins or ends with."""


def numpy_texts(cells: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Arrow's text without missing cells as NumPy's [n].

    Example:
        >>> import pyarrow as pa
        >>> numpy_texts(pa.array(["A", "", "Æg"])).tolist()
        ['A', '', 'Æg']
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    chunks = cells.chunks if isinstance(cells, pa.ChunkedArray) else [cells]
    if not all(_letters(chunk)[1].max(initial=0) < 128 for chunk in chunks):
        return np.array(cells.to_pylist(), dtype=str)
    width = max([1, *(pc.max(pc.binary_length(chunk)).as_py() or 0 for chunk in chunks)])
    texts = np.zeros(len(cells), dtype=f"<U{width}")
    codes, row = texts.view(np.uint32).reshape(len(texts), width), 0
    for chunk in chunks:
        for letters, _ in _blocks(chunk, width):
            codes[row : row + len(letters)] = letters
            row += len(letters)
    return texts


def _letters(chunk: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Where each text of a chunk begins and the last ends [n + 1], and all bytes from the first text on."""
    import pyarrow as pa

    _, offsets, data = chunk.buffers()
    wide = pa.types.is_large_string(chunk.type)
    ends = np.frombuffer(offsets, dtype=np.int64 if wide else np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    first, last = (int(ends[0]), int(ends[-1])) if len(ends) else (0, 0)
    held = np.empty(0, dtype=np.uint8) if data is None else np.frombuffer(data, dtype=np.uint8)[first:last]
    return ends - first, held


def may_have_blanks(chunk: pa.Array) -> bool:
    """Whether a text of a chunk may have blanks around it: one begins or ends with a blank, or beyond ASCII."""
    ends, data = _letters(chunk)
    given = ends[1:] > ends[:-1]
    if not given.any():
        return False
    first, last = data[ends[:-1][given]], data[ends[1:][given] - 1]
    return bool((_BLANK[first] | _BLANK[last]).any())


def _blocks(chunk: pa.Array, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The bytes of texts in rows of one width, zeros behind them, and their lengths; ``ROWS`` at a time."""
    ends, data = _letters(chunk)
    for start in range(0, len(chunk), ROWS):
        end = ends[start : start + ROWS + 1]
        lengths, own = np.diff(end), data[end[0] : end[-1]]
        if (lengths == width).all():
            yield own.reshape(len(lengths), width), lengths
            continue
        letters = np.zeros((len(lengths), width), dtype=np.uint8)
        letters[np.arange(width) < lengths[:, None]] = own
        yield letters, lengths


def arrow_texts(texts: np.ndarray) -> pa.Array:
    """NumPy's texts [n] as Arrow's, the inverse of ``numpy_texts``."""
    import pyarrow as pa

    codes = _ascii(texts)
    if codes is None:
        return pa.array(texts.tolist(), pa.string())
    parts, ends = [], np.zeros(len(texts) + 1, dtype=np.int64)
    for start in range(0, len(codes), ROWS):
        letters = codes[start : start + ROWS].astype(np.uint8)
        ends[start + 1 : start + 1 + len(letters)] = np.count_nonzero(letters, axis=1)
        parts.append(letters[letters != 0])
    buffers = [None, pa.py_buffer(np.cumsum(ends).astype(np.int32)), pa.py_buffer(np.concatenate(parts))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def _ascii(texts: np.ndarray) -> np.ndarray | None:
    """The letters of texts [n, width], zeros behind the last; none where one is beyond ASCII, or is a zero itself."""
    if not len(texts):
        return None
    codes = np.ascontiguousarray(texts, dtype=str).view(np.uint32).reshape(len(texts), -1)
    for start in range(0, len(codes), ROWS):
        own = codes[start : start + ROWS]
        if own.max() > 127 or ((own[:, :-1] == 0) & (own[:, 1:] != 0)).any():
            return None
    return codes


def numbered(texts: np.ndarray) -> tuple[np.ndarray, Int[np.ndarray, " n"]]:
    """The different texts in the order of their first place, and the number of each text's own [n]; fast where few
    texts stand many times.

    Example:
        >>> numbered(np.array(["B", "A", "B"]))
        (array(['B', 'A'], dtype='<U1'), array([0, 1, 0]))
    """
    import pandas as pd

    number = pd.factorize(text_hashes(texts))[0].astype(np.int64)
    first = np.full(int(number.max(initial=-1)) + 1, len(texts))
    np.minimum.at(first, number, np.arange(len(texts)))
    if not np.array_equal(texts[first[number]], texts):  # two texts have one hash
        number, _ = pd.factorize(texts.astype(object))
        first = np.unique(number, return_index=True)[1]
    return texts[first], number


def sorted_lines_hash(first: np.ndarray, second: np.ndarray) -> str:
    """sha256 of the lines ``first``, tab, ``second`` [n] in sorted order, joined by ends of lines, in hexadecimal."""
    codes = [code for texts in (first, second) if (code := _ascii(texts)) is not None]
    if len(codes) < 2:
        lines = sorted(f"{a}\t{b}" for a, b in zip(first.tolist(), second.tolist(), strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    width = codes[0].shape[1] + 1 + codes[1].shape[1]
    rows = np.zeros((len(first), -(-width // 8) * 8), dtype=np.uint8)
    for start in range(0, len(rows), ROWS):
        own = [code[start : start + ROWS].astype(np.uint8) for code in codes]
        line = np.concatenate([own[0], np.full((len(own[0]), 1), ord("\t"), dtype=np.uint8), own[1]], axis=1)
        length = np.count_nonzero(line, axis=1)
        rows[start : start + ROWS, :width][np.arange(width) < length[:, None]] = line[line != 0]
    order = np.lexsort(rows.view(">u8").astype(np.uint64).T[::-1])
    digest = hashlib.sha256()
    for start in range(0, len(order), ROWS):
        at = order[start : start + ROWS]
        block = np.concatenate([rows[at], np.zeros((len(at), 1), dtype=np.uint8)], axis=1)
        block[np.arange(len(at)), np.count_nonzero(block, axis=1)] = ord("\n")
        text = block[block != 0]
        digest.update(text if start + ROWS < len(order) else text[:-1])
    return digest.hexdigest()
