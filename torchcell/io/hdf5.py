"""Opens HDF5 files and zarr folders that hold their data themselves; every reader opens them here.

An HDF5 file can name other files by external links, external storage and virtual data sets: any file that the user may
read would become a gene's name, a label or the expression. A zarr folder can name codecs that unpickle, or hold links.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchcell.io.ceiling import USUAL, refuse_bomb
from torchcell.io.errors import InputError, some
from torchcell.io.paths import located

if TYPE_CHECKING:
    import h5py

CODECS = frozenset(
    (
        "zlib", "gzip", "bz2", "lzma", "zstd", "lz4", "blosc", "shuffle", "delta", "fixedscaleoffset", "astype",
        "quantize", "bitround", "packbits", "crc32", "crc32c", "adler32", "fletcher32", "vlen-utf8", "vlen-bytes",
        "vlen-array", "bytes", "transpose", "sharding_indexed",
    )
)  # fmt: skip
"""Of zarr, by name: those that make numbers and texts of bytes, and nothing else."""
ABOUT_ZARR = (".zarray", ".zmetadata", "zarr.json")
"""Files of a zarr folder that say how its arrays are stored."""


def open_hdf5(path: str | Path) -> h5py.File:
    """An HDF5 file, open for reading, all of whose data are its own and in proportion to its size.

    Raises:
        InputError: No such file; no HDF5; data in other files; more of them than goes with its size.
    """
    import h5py

    path = located(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} can't be read as HDF5: {error}; is it whole? copy it again") from error
    try:
        _refuse_foreign(file, path)
    except BaseException:
        file.close()
        raise
    return file


def check_hdf5(path: str | Path) -> Path:
    """The same for what opens the file itself: its place, once it is known to be plain."""
    open_hdf5(path).close()
    return located(path)


def _refuse_foreign(file: h5py.File, path: Path) -> None:
    foreign, wanted = [], 0
    for name, what, size in _parts(file, "", set()):
        wanted += size
        if what:
            foreign.append(f"{name} ({what})")
    if foreign:
        raise InputError(
            f"{path} takes data from other files: {some(foreign)}; a file of others could so make any file of yours "
            "part of the data, and none of it was read. Copy the data into the file, e.g. by reading and writing it "
            "where it was made"
        )
    refuse_bomb(path, wanted, path.stat().st_size, "its data sets")


def _parts(group: Any, place: str, seen: set[Any]) -> Iterator[tuple[str, str, int]]:
    """Name of each link and data set below a group, how it leads to another file if it does, and its bytes."""
    import h5py

    for name in group:
        where, link = f"{place}/{name}", group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            yield where, f"external link to {link.filename}", 0
            continue
        if isinstance(link, h5py.SoftLink):  # to what is met by its own name, or to nothing
            continue
        found = group[name]
        about = h5py.h5o.get_info(found.id)
        key = (about.fileno, about.addr)
        if key in seen:
            continue
        seen.add(key)
        if isinstance(found, h5py.Group):
            yield from _parts(found, where, seen)
        elif isinstance(found, h5py.Dataset):
            what = "external storage" if found.external else "virtual data set" if found.is_virtual else ""
            yield where, what, 0 if found.shape is None else math.prod(found.shape) * found.dtype.itemsize


def open_zarr(path: str | Path) -> Any:
    """A zarr folder's root group, open for reading, whose codecs are on the list and whose files are its own.

    Raises:
        InputError: Another codec; a link that leaves the folder; more data than goes with its size.
    """
    import zarr

    path = located(path)
    own, consolidated, odd, links = 0, 0, set(), []
    for folder, folders, files in os.walk(path):
        entries = (Path(folder) / name for name in (*folders, *files))
        links += [one.name for one in entries if one.is_symlink() and not one.resolve().is_relative_to(path.resolve())]
        for name in set(ABOUT_ZARR) & set(files):
            about = _json(Path(folder) / name)
            odd |= {codec for codec in _codecs(about) if codec.removeprefix("numcodecs.") not in CODECS}
            own += _size(about)
            consolidated += sum(_size(one) for one in _nested(about))
    if links:
        raise InputError(f"{path} holds links to other files: {some(links)}; copy what they lead to into the folder")
    if odd:
        raise InputError(
            f"{path} asks for the codec(s) {some(sorted(odd))}, which are not on the list of those that make plain "
            "numbers and texts; write the folder again with one of them, e.g. zstd"
        )
    wanted = max(own, consolidated)
    if wanted > USUAL:
        stored = sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
        refuse_bomb(path, wanted, stored, "its arrays")
    return zarr.open_group(str(path), mode="r")


def writable_zarr(path: Path, begun: bool) -> Any:
    """A zarr folder's root group, open for writing, version 3.

    Args:
        path: The folder.
        begun: Go on with what is there, once it is known to be as ``open_zarr`` wants it; else it is made anew.

    Raises:
        InputError: As of ``open_zarr``.
    """
    import zarr

    if begun:
        open_zarr(path)
    return zarr.open_group(str(path), mode="a" if begun else "w", zarr_format=3)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read ({error}); copy it again") from error


def _nested(about: Any) -> Iterator[Any]:
    """Descriptions of arrays within another, as consolidated metadata holds them."""
    for key, value in about.items() if isinstance(about, dict) else ():
        if key != "attributes" and isinstance(value, dict):
            yield value
            yield from _nested(value)


def _codecs(about: Any) -> Iterator[str]:
    """Names of all codecs that the description of arrays mentions, at whatever depth."""
    if isinstance(about, list):
        for one in about:
            yield from _codecs(one)
    if not isinstance(about, dict):
        return
    for key, value in about.items():
        if key == "attributes":  # the user's own
            continue
        if key in ("compressor", "filters", "codecs", "index_codecs"):
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    named = one.get("id", one.get("name")) if isinstance(one, dict) else one
                    yield str(named)
        yield from _codecs(value)


def _size(about: Any) -> int:
    """Bytes of the array that a description is of; 0 of a group."""
    import numpy as np

    shape = about.get("shape") if isinstance(about, dict) else None
    if not isinstance(shape, list) or not all(isinstance(length, int) for length in shape):
        return 0
    kind = about.get("dtype", about.get("data_type"))
    try:
        item = np.dtype(kind if isinstance(kind, str) else "f8").itemsize or 8
    except TypeError:
        item = 8
    return math.prod(shape) * item
