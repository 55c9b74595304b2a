"""Plain arrays in an ``.npz`` file, and files in a cache that are made again where they are damaged."""

from __future__ import annotations

import logging
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from torchcell.data.errors import InputError

log = logging.getLogger(__name__)

Found = TypeVar("Found")

DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, EOFError, OSError, MemoryError, OverflowError, RuntimeError,
    SyntaxError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What numpy raises, by experience, when bytes of an ``.npz`` are cut off or changed."""


def write_arrays(path: str | Path, **arrays: Any) -> None:
    """Write arrays without pickles; an ``.npz`` keeps a checksum of each, which ``.npy`` does not.

    Raises:
        InputError: An array of objects, which could only be stored as a pickle.
    """
    from torchcell.data.cache import atomic_write

    objects = [name for name, values in arrays.items() if np.asarray(values).dtype.hasobject]
    if objects:
        raise InputError(f"{path}: arrays of objects can't be written without pickles: {objects}")
    with atomic_write(path) as temporary:
        np.savez(temporary, **arrays)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file, each compared with its checksum; pickles are refused.

    Raises:
        InputError: No such file, or it is truncated, changed, no ``.npz``, or holds objects.
    """
    if not Path(path).is_file():
        raise InputError(f"no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except DAMAGE as error:
        why = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{path} is damaged or no file of plain arrays ({why}); delete it, then run again") from error


def kept(path: Path, read: Callable[[Path], Found], make: Callable[[Path], None]) -> Found:
    """What ``read`` finds at ``path`` in a cache; ``make`` writes the file where it is not there or is damaged.

    However many processes ask at a time, the file is made once: the others wait for it.

    Args:
        path: The file.
        read: Raises ``InputError`` for a file that is damaged or of something else.
        make: Writes ``path`` whole or not at all.
    """
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with FileLock(f"{path}.lock"):
            if not path.exists():
                make(path)
    try:
        return read(path)
    except InputError:
        with FileLock(f"{path}.lock"):
            try:
                return read(path)  # another process may have mended it while this one waited
            except InputError as error:
                log.warning("%s; made again", str(error).removesuffix("; delete it, then run again"))
                make(path)
    return read(path)
