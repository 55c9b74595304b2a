"""Pieces of arrays on disk are those of the arrays, however these are stored."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from torchcell.io.chunked import _InHdf5, _InShards, hdf5_chunks, zarr_chunks
from torchcell.io.hdf5 import open_hdf5, open_zarr

VALUES = np.random.default_rng(0).integers(0, 250, 1003)
PLAIN = {"contiguous": {}, "chunked": {"chunks": (64,)}, "one chunk": {"chunks": (2000,), "maxshape": (None,)}}
PACKED = {"gzip": {"chunks": (64,), "compression": "gzip"}, "shuffled": {"chunks": (64,), "shuffle": True},
          "summed": {"chunks": (64,), "fletcher32": True}}  # fmt: skip


def pieces() -> tuple[np.ndarray, np.ndarray]:
    """Within chunks, over their borders, of several chunks, empty, and up to the end."""
    start = np.array([0, 3, 3, 60, 128, 500, 1000])
    return start, np.array([1, 3, 60, 70, 128, 900, 1003])


def check(array: object) -> None:
    start, stop = pieces()
    wanted = np.concatenate([VALUES[a:b] for a, b in zip(start, stop, strict=True)])
    np.testing.assert_array_equal(array.take(start, stop), wanted)  # type: ignore[attr-defined]
    assert len(array.take(start[:0], stop[:0])) == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [*PLAIN, *PACKED])
@pytest.mark.parametrize("dtype", ["<f4", "<i8", ">f8"])
def test_pieces_of_hdf5(tmp_path: Path, kind: str, dtype: str) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("other", data=np.arange(77))
        file.create_dataset("values", data=VALUES.astype(dtype), **(PLAIN | PACKED)[kind])
    array = hdf5_chunks(open_hdf5(tmp_path / "file.h5")["values"])
    assert isinstance(array, _InHdf5) is (kind in PLAIN and dtype != ">f8")
    check(array)


@pytest.mark.parametrize("kind", ["shards", "zstd", "no shards", "version 2"])
def test_pieces_of_zarr(tmp_path: Path, kind: str) -> None:
    root = zarr.open_group(tmp_path / "cells.zarr", mode="w", zarr_format=2 if kind == "version 2" else 3)
    shards = {"shards": (256,)} if kind in ("shards", "zstd") else {}
    packing = {"compressors": None} if kind == "shards" else {}
    root.create_array("values", shape=(1003,), dtype="f4", chunks=(64,), **shards, **packing)[:] = VALUES
    array = zarr_chunks(open_zarr(tmp_path / "cells.zarr")["values"], tmp_path / "cells.zarr" / "values")
    assert isinstance(array, _InShards) is (kind == "shards")
    check(array)


def test_a_file_that_is_cut_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    """A mapped file would end the process."""
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("values", data=np.tile(VALUES, 100))
    array = hdf5_chunks(open_hdf5(tmp_path / "file.h5")["values"])
    with (tmp_path / "file.h5").open("rb+") as file:
        file.truncate(5_000)
    with pytest.raises(OSError, match="the file ends before value"):
        array.take(np.array([90_000]), np.array([90_010]))
