"""One-dimensional arrays on disk as the chunks that they lie in: many short pieces are read at the cost of memory.

Chunks without compression, which is how anndata writes h5ad files and ``data prepare`` zarr folders, are mapped: no
library stands between a row and its bytes. All others are decoded by their library, a chunk at a time.
"""

from __future__ import annotations

import json
import mmap
import struct
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from torchcell.io.errors import InputError

NO_CHUNK = 2**64 - 1
"""Offset of a chunk that a shard lacks."""


class Chunked(ABC):
    """An array [n] in chunks of ``step`` values.

    Attributes:
        size: n.
        step: Values of a chunk; the last one may have fewer.
        dtype: Of the values.
    """

    size: int
    step: int
    dtype: np.dtype

    @abstractmethod
    def chunk(self, k: int) -> np.ndarray:
        """The values from ``k * step`` on; the last chunk may reach beyond the array."""

    def take(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Pieces one after the other.

        Args:
            start: First value of each piece, rising [k].
            stop: Where each piece ends [k]; no piece begins before the last one ended.
        """
        found = np.empty(int((stop - start).sum()), dtype=self.dtype)
        step, at, loaded, first, values = self.step, 0, -1, 0, found
        for one, end in zip(start.tolist(), stop.tolist(), strict=True):
            while one < end:
                k = one // step
                if k != loaded:
                    values, loaded, first = self.chunk(k), k, k * step
                until = min(end, first + step)
                found[at : at + until - one] = values[one - first : until - first]
                at, one = at + until - one, until
        return found


def hdf5_chunks(dataset: Any) -> Chunked:
    """An HDF5 data set that is open, and was opened by ``open_hdf5``."""
    packed = dataset.compression is not None or dataset.shuffle or dataset.scaleoffset is not None
    packed = packed or dataset.fletcher32 or dataset.id.get_create_plist().get_nfilters() > 0
    plain = not packed and dataset.dtype.kind in "fiu" and dataset.dtype.isnative
    if plain and dataset.chunks is None and dataset.id.get_offset() is not None:
        return _Mapped(dataset, [dataset.id.get_offset()], dataset.shape[0])
    if plain and dataset.chunks is not None:
        offsets = np.full(-(-dataset.shape[0] // dataset.chunks[0]), -1, dtype=np.int64)

        def note(about: Any) -> None:
            offsets[about.chunk_offset[0] // dataset.chunks[0]] = about.byte_offset

        dataset.id.chunk_iter(note)
        if (offsets >= 0).all():
            return _Mapped(dataset, offsets.tolist(), dataset.chunks[0])
    return _Library(dataset)


def zarr_chunks(array: Any, folder: Path) -> Chunked:
    """An array of a zarr folder that was opened by ``open_zarr``.

    Args:
        array: The array.
        folder: Of the array itself.
    """
    about = folder / "zarr.json"
    if about.is_file() and (shards := _plain_shards(json.loads(about.read_text()))):
        return _Shards(folder, *shards)
    return _Library(array)


class _Library(Chunked):
    """Chunks that their library decodes."""

    def __init__(self, array: Any) -> None:
        self._array, self.size, self.dtype = array, array.shape[0], array.dtype
        self.step = array.chunks[0] if array.chunks else max(self.size, 1)

    def chunk(self, k: int) -> np.ndarray:
        found: np.ndarray = self._array[k * self.step : (k + 1) * self.step]
        return found


class _Mapped(Chunked):
    """Chunks of an HDF5 file as they lie in it."""

    def __init__(self, dataset: Any, offsets: list[int], step: int) -> None:
        self.size, self.step, self.dtype, self._offsets = dataset.shape[0], max(step, 1), dataset.dtype, offsets
        with open(dataset.file.filename, "rb") as file:
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        end = (max(offsets) if offsets else 0) + min(self.step, self.size) * self.dtype.itemsize
        if end > len(self._file):
            raise OSError(f"{dataset.name} ends {end - len(self._file):,} bytes beyond the file")

    def chunk(self, k: int) -> np.ndarray:
        return np.frombuffer(self._file, self.dtype, min(self.step, self.size - k * self.step), self._offsets[k])


class _Shards(Chunked):
    """Chunks of zarr shards without compression: a file of chunks and, at its end, where each of them begins."""

    def __init__(self, folder: Path, size: int, shard: int, step: int, dtype: np.dtype) -> None:
        self.size, self.step, self.dtype = size, step, dtype
        self._folder, self._of_shard, self._open = folder, shard // step, {}
        self._open: dict[int, tuple[mmap.mmap, np.ndarray]] = {}

    def chunk(self, k: int) -> np.ndarray:
        shard, at = divmod(k, self._of_shard)
        if shard not in self._open:
            self._open[shard] = self._opened(shard)
        file, offsets = self._open[shard]
        offset = int(offsets[at])
        if offset == NO_CHUNK:
            raise OSError(f"chunk {k} is not there")
        return np.frombuffer(file, self.dtype, self.step, offset)

    def _opened(self, shard: int) -> tuple[mmap.mmap, np.ndarray]:
        path = self._folder / "c" / str(shard)
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is missing or empty ({error}); copy the folder again") from error
        tail, n = 16 * self._of_shard, len(mapped)
        index = np.frombuffer(mapped, "<u8", 2 * self._of_shard, n - tail - 4) if n >= tail + 4 else np.zeros(0, "u8")
        known = struct.unpack("<I", mapped[-4:])[0] if n >= 4 else 0
        if not len(index) or _crc32c(index.tobytes()) != known:
            raise InputError(f"{path} is half-written or damaged: its index does not add up; copy the folder again")
        offsets, sizes = index[::2], index[1::2]
        there = offsets != NO_CHUNK
        ends = offsets[there] + sizes[there]
        if (sizes[there] != self.step * self.dtype.itemsize).any() or (ends > n - tail - 4).any():
            raise InputError(f"{path} is half-written or damaged: its index does not fit; copy the folder again")
        return mapped, offsets


def _crc32c(data: bytes) -> int:
    from numcodecs.checksum32 import CRC32C

    encoded = bytes(CRC32C(location="end").encode(data))
    return int(struct.unpack("<I", encoded[-4:])[0])


def _plain_shards(about: dict[str, Any]) -> tuple[int, int, int, np.dtype] | None:
    """Size, values of a shard and of a chunk, and type, of shards that hold plain bytes; none of all others."""
    codecs = about.get("codecs", [])
    if len(codecs) != 1 or codecs[0].get("name") != "sharding_indexed" or len(about.get("shape", [])) != 1:
        return None
    inner = codecs[0]["configuration"]
    names = [codec.get("name") for codec in inner["codecs"]]
    little = inner["codecs"][0].get("configuration", {}).get("endian", "little") == "little"
    index = [codec.get("name") for codec in inner["index_codecs"]]
    keys = about.get("chunk_key_encoding", {"name": "default"}).get("name") == "default"
    if names != ["bytes"] or index != ["bytes", "crc32c"] or not little or not keys:
        return None
    if inner.get("index_location", "end") != "end" or about["data_type"] not in PLAIN:
        return None
    shard = about["chunk_grid"]["configuration"]["chunk_shape"][0]
    return about["shape"][0], shard, inner["chunk_shape"][0], np.dtype(about["data_type"])


PLAIN = ("float32", "float64", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "int8", "int16")
