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
from torchcell.data.homes import say_unwritable

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


def kept(
    path: Path, read: Callable[[Path], Found], make: Callable[[], Found], write: Callable[[Path, Found], None]
) -> Found:
    """What ``read`` finds at ``path`` in a cache; made, and written there, where it is missing or damaged.

    However many processes ask at a time, it is made once: the others wait for it. A cache is best effort: where it
    can't be written, or is full, what was made goes on in memory, and a warning says so once.

    Args:
        path: The file.
        read: Raises ``InputError`` for a file that is damaged or of something else.
        make: What ``read`` would find.
        write: Writes it to a path, whole or not at all.
    """
    from filelock import FileLock

    if path.exists():
        try:
            return read(path)
        except InputError:
            pass  # another process may be mending it: see below
    lock = FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        say_unwritable(path.parent, error)
        return make()
    try:
        return _mended(path, read, make, write)
    finally:
        lock.release()


def _mended(
    path: Path, read: Callable[[Path], Found], make: Callable[[], Found], write: Callable[[Path, Found], None]
) -> Found:
    """The same for one process at a time."""
    if path.exists():
        try:
            return read(path)
        except InputError as error:
            log.warning("%s; made again", str(error).removesuffix("; delete it, then run again"))
    made = make()
    try:
        write(path, made)
    except OSError as error:
        say_unwritable(path.parent, error)
        return made
    return read(path)
