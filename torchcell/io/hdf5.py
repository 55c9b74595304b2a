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

from torchcell.io.ceiling import USUAL, ceiling, refuse_bomb
from torchcell.io.errors import InputError, some
from torchcell.io.hdf5_texts import CELL, bytes_of_texts, has_texts
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


N_BIT, SCALE_OFFSET = 5, 6
"""Filters that nobody here writes, whose code in HDF5 before 2.1 writes beyond its memory (CVE-2025-2308, -44905)."""
DEEPEST = 60
"""Groups within groups of a file; those of AnnData have five."""


def _refuse_foreign(file: h5py.File, path: Path) -> None:
    walk = _Walk()
    foreign = [f"{name} ({what})" for name, what in walk.through(file, "")]
    foreign += [
        f"{name} (reference to what has no name)"
        for name, reference in walk.references
        if reference and _key(file[reference]) not in walk.seen
    ]
    if foreign:
        raise InputError(
            f"{path} takes data from other files: {some(foreign)}; a file of others could so make any file of yours "
            "part of the data, and none of it was read. Copy the data into the file, e.g. by reading and writing it "
            "where it was made"
        )
    stored = path.stat().st_size
    refuse_bomb(path, walk.wanted, stored, "its data sets")
    texts = 0
    for data in walk.texts:
        texts += bytes_of_texts(data, path, ceiling(stored))
        refuse_bomb(path, texts, stored, f"the texts up to {data.name}")


class _Walk:
    """All that has a name below a group.

    Attributes:
        seen: What was met.
        wanted: Bytes of all data sets.
        texts: Data sets of texts of variable length.
        references: Attributes that lead to an object, by name.
    """

    def __init__(self) -> None:
        self.seen: set[Any] = set()
        self.wanted = 0
        self.texts: list[h5py.Dataset] = []
        self.references: list[tuple[str, Any]] = []

    def through(self, group: Any, place: str) -> Iterator[tuple[str, str]]:
        """Name of each link and data set that leads to another file, and how."""
        import h5py

        if place.count("/") > DEEPEST:
            raise InputError(f"{group.file.filename}: groups within groups, more than {DEEPEST} of them")
        for name in group:
            where, link = f"{place}/{name}", group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                yield where, f"external link to {link.filename}"
                continue
            if isinstance(link, h5py.SoftLink):  # to what is met by its own name, or to nothing
                continue
            found = group[name]
            if _key(found) in self.seen:
                continue
            self.seen.add(_key(found))
            self._look_at_attributes(found, where)
            if isinstance(found, h5py.Group):
                yield from self.through(found, where)
            elif isinstance(found, h5py.Dataset):
                if found.external or found.is_virtual:
                    yield where, "external storage" if found.external else "virtual data set"
                self._count(found)

    def _look_at_attributes(self, found: Any, where: str) -> None:
        import h5py

        for name in found.attrs:
            about = found.attrs.get_id(name)
            if h5py.check_ref_dtype(about.dtype) is h5py.Reference:
                values = found.attrs[name]
                self.references += [(f"{where}@{name}", one) for one in getattr(values, "flat", [values])]

    def _count(self, data: h5py.Dataset) -> None:
        """A chunk is unpacked whole, also where the data set is smaller."""
        if data.shape is None:
            return
        made = data.id.get_create_plist()
        if {N_BIT, SCALE_OFFSET} & {made.get_filter(i)[0] for i in range(made.get_nfilters())}:
            raise InputError(
                f"{data.file.filename}: {data.name} is packed by n-bit or scale-offset, whose unpacking is not safe in "
                "HDF5; write it again with gzip"
            )
        texts = has_texts(data.dtype)
        cells = max(math.prod(data.shape), math.prod(data.chunks or (0,)))
        self.wanted += cells * (max(CELL, data.dtype.itemsize) if texts else data.dtype.itemsize)
        if texts and data.size:
            self.texts.append(data)


def _key(found: Any) -> tuple[int, int]:
    """What an HDF5 object is known by."""
    import h5py

    about = h5py.h5o.get_info(found.id)
    return about.fileno, about.addr


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
    """Bytes of the array that a description is of, or of one of its chunks where that is larger; 0 of a group."""
    import numpy as np

    if not isinstance(about, dict):
        return 0
    grid = about.get("chunk_grid")
    grid = grid.get("configuration") if isinstance(grid, dict) else None
    chunk = grid.get("chunk_shape") if isinstance(grid, dict) else about.get("chunks")
    shapes = [one for one in (about.get("shape"), chunk) if isinstance(one, list)]
    if not shapes or not all(isinstance(length, int) for shape in shapes for length in shape):
        return 0
    kind = about.get("dtype", about.get("data_type"))
    try:
        item = np.dtype(kind if isinstance(kind, str) else "f8").itemsize or 8
    except TypeError:
        item = 8
    return max(math.prod(shape) for shape in shapes) * item
