"""One-dimensional arrays on disk as the chunks that they lie in: many short pieces are read at the cost of memory.

Of chunks without compression, which is how anndata writes h5ad files and ``data prepare`` zarr folders, the bytes of a
row are read where they lie, without a library. All others are decoded by their library, a chunk at a time.
"""

from __future__ import annotations

import json
import os
import struct
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

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
    def take(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Pieces one after the other.

        Args:
            start: First value of each piece, rising [k].
            stop: Where each piece ends [k]; no piece begins before the last one ended.
        """


def hdf5_chunks(dataset: Any) -> Chunked:
    """An HDF5 data set that is open, and was opened by ``open_hdf5``."""
    packed = dataset.compression is not None or dataset.shuffle or dataset.scaleoffset is not None
    packed = packed or dataset.fletcher32 or dataset.id.get_create_plist().get_nfilters() > 0
    plain = not packed and dataset.dtype.kind in "fiu" and dataset.dtype.isnative
    if plain and dataset.chunks is None and dataset.id.get_offset() is not None:
        return _InHdf5(dataset, [dataset.id.get_offset()], dataset.shape[0])
    if plain and dataset.chunks is not None:
        offsets = np.full(-(-dataset.shape[0] // dataset.chunks[0]), -1, dtype=np.int64)

        def note(about: Any) -> None:
            offsets[about.chunk_offset[0] // dataset.chunks[0]] = about.byte_offset

        dataset.id.chunk_iter(note)
        if (offsets >= 0).all():
            return _InHdf5(dataset, offsets.tolist(), dataset.chunks[0])
    return _Library(dataset)


def zarr_chunks(array: Any, folder: Path) -> Chunked:
    """An array of a zarr folder that was opened by ``open_zarr``.

    Args:
        array: The array.
        folder: Of the array itself.
    """
    about = folder / "zarr.json"
    if about.is_file() and (shards := _plain_shards(json.loads(about.read_text()))):
        return _InShards(folder, *shards)
    return _Library(array)


class _Library(Chunked):
    """Chunks that their library decodes, each once for all pieces in it."""

    def __init__(self, array: Any) -> None:
        self._array, self.size, self.dtype = array, array.shape[0], array.dtype
        self.step = array.chunks[0] if array.chunks else max(self.size, 1)

    def take(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        found = np.empty(int((stop - start).sum()), dtype=self.dtype)
        step, at, loaded, first, values = self.step, 0, -1, 0, found
        for one, end in zip(start.tolist(), stop.tolist(), strict=True):
            while one < end:
                k = one // step
                if k != loaded:
                    values, loaded, first = self._array[k * step : (k + 1) * step], k, k * step
                until = min(end, first + step)
                found[at : at + until - one] = values[one - first : until - first]
                at, one = at + until - one, until
        return found


class _Plain(Chunked):
    """Chunks without compression, read where they lie. They are not mapped: a file that is cut meanwhile is an error
    then, and a mapped one would end the process.
    """

    @abstractmethod
    def place(self, k: int) -> tuple[int, int]:
        """Descriptor of the file of chunk k, and the byte where the chunk begins."""

    def take(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        found = np.empty(int((stop - start).sum()), dtype=self.dtype)
        into, step, width, at, loaded, file, begin = found.view(np.uint8).data, self.step, found.itemsize, 0, -1, 0, 0
        for one, end in zip(start.tolist(), stop.tolist(), strict=True):
            while one < end:
                k = one // step
                if k != loaded:
                    (file, begin), loaded = self.place(k), k
                until = min(end, (k + 1) * step)
                n = (until - one) * width
                if os.preadv(file, [into[at : at + n]], begin + (one - k * step) * width) != n:
                    raise OSError(f"the file ends before value {until:,}")
                at, one = at + n, until
        return found


class _InHdf5(_Plain):
    """Chunks of an HDF5 file."""

    def __init__(self, dataset: Any, offsets: list[int], step: int) -> None:
        self.size, self.step, self.dtype, self._offsets = dataset.shape[0], max(step, 1), dataset.dtype, offsets
        self._file = open(dataset.file.filename, "rb")  # noqa: SIM115  closed with this object

    def place(self, k: int) -> tuple[int, int]:
        return self._file.fileno(), self._offsets[k]


class _InShards(_Plain):
    """Chunks of zarr shards: a file of chunks and, at its end, where each of them begins."""

    def __init__(self, folder: Path, size: int, shard: int, step: int, dtype: np.dtype) -> None:
        self.size, self.step, self.dtype = size, step, dtype
        self._folder, self._of_shard = folder, shard // step
        self._shards: dict[int, tuple[BinaryIO, list[int]]] = {}

    def place(self, k: int) -> tuple[int, int]:
        shard, at = divmod(k, self._of_shard)
        if shard not in self._shards:
            self._shards[shard] = self._opened(shard)
        file, offsets = self._shards[shard]
        if offsets[at] == NO_CHUNK:
            raise OSError(f"chunk {k} is not there")
        return file.fileno(), offsets[at]

    def _opened(self, shard: int) -> tuple[BinaryIO, list[int]]:
        path, tail = self._folder / "c" / str(shard), 16 * self._of_shard
        try:
            file = path.open("rb")
        except OSError as error:
            raise InputError(f"{path} is missing or can't be read ({error}); copy the folder again") from error
        n = file.seek(0, os.SEEK_END)
        file.seek(max(n - tail - 4, 0))
        end = file.read()
        if n < tail + 4 or _crc32c(end[:tail]) != struct.unpack("<I", end[tail:])[0]:
            raise InputError(f"{path} is half-written or damaged: its index does not add up; copy the folder again")
        offsets, sizes = np.frombuffer(end, "<u8", 2 * self._of_shard).reshape(-1, 2).T
        there = offsets != NO_CHUNK
        ends = offsets[there] + sizes[there]
        if (sizes[there] != self.step * self.dtype.itemsize).any() or (ends > n - tail - 4).any():
            raise InputError(f"{path} is half-written or damaged: its index does not fit; copy the folder again")
        return file, offsets.tolist()


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
