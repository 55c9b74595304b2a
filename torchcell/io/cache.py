"""Atomic writes, records as ``.npz`` files without pickles, and the cache of parsed sources."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import struct
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol, Self, TypeVar

import numpy as np

from torchcell.io.ceiling import refuse_npz_bomb
from torchcell.io.errors import InputError
from torchcell.io.file_facts import is_settled, place_of, reads_again, remembered, state_of
from torchcell.io.locks import locked
from torchcell.io.paths import is_own, make_own, own_home, say_unwritable
from torchcell.io.sources import registry

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
        return plain_arrays(path)
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        why = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{path} is damaged or no file of plain arrays ({why}); delete it, then run again") from error


def plain_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file, once their sizes are known to go with it; numpy's errors for a damaged one."""
    refuse_npz_bomb(path)
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def mapped_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of ``read_arrays`` as they lie in the file: read-only, in memory once for all processes that map them,
    and only where they are looked at. Checksums are compared once for each state of the file.

    Raises:
        InputError: As ``read_arrays``, or a file with compressed members.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        remembered(path, "checksums of its arrays", lambda: _right_checksums(path))
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return {member.filename.removesuffix(".npy"): _mapped(path, file, member) for member in archive.infolist()}
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        why = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{path} is damaged or no file of plain arrays ({why}); delete it, then run again") from error


def _right_checksums(path: Path) -> str:
    refuse_npz_bomb(path)
    with zipfile.ZipFile(path) as archive:
        if wrong := archive.testzip():
            raise zipfile.BadZipFile(f"another checksum of {wrong}")
    return "right"


def _mapped(path: Path, file: IO[bytes], member: zipfile.ZipInfo) -> np.ndarray:
    """One array of an ``.npz`` that is not compressed."""
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} can't be mapped")
    file.seek(member.header_offset)
    name, extra = struct.unpack("<26x2H", file.read(30))  # lengths of what stands between this header and the array
    file.seek(name + extra, os.SEEK_CUR)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, turned, dtype = read(file)
    if dtype.hasobject or turned:
        raise ValueError(f"{member.filename} can't be mapped")
    if 0 in shape or shape == ():
        return np.frombuffer(file.read(dtype.itemsize if shape == () else 0), dtype).reshape(shape)
    return np.asarray(np.memmap(path, dtype, "r", file.tell(), shape))


WAIT_S = 3600.0
"""Longest time that a process waits for another one to make a file of the cache; then it makes its own."""


def kept(
    path: Path, read: Callable[[Path], Found], make: Callable[[], Found], write: Callable[[Path, Found], None]
) -> Found:
    """What ``read`` finds at ``path`` in a cache; made, and written there, where it is missing or damaged.

    However many processes ask at a time, it is made once: the others wait for it. A cache is best effort: where it
    can't be written, is full, or its lock does not come (``WAIT_S``), what was made goes on in memory, and a warning
    says so once.

    Args:
        path: The file.
        read: Raises ``InputError`` for a file that is damaged or of something else.
        make: What ``read`` would find.
        write: Writes it to a path, whole or not at all.
    """
    if path.exists() and is_own(path.parent):
        try:
            return read(path)
        except InputError:
            pass  # another process may be mending it: see below
    with ExitStack() as stack:
        try:
            make_own(path.parent)
            stack.enter_context(locked(Path(f"{path}.lock"), WAIT_S))
        except OSError as error:
            say_unwritable(path.parent, error)
            return make()
        return _mended(path, read, make, write)


def _mended(
    path: Path, read: Callable[[Path], Found], make: Callable[[], Found], write: Callable[[Path, Found], None]
) -> Found:
    """The same for one process at a time."""
    remove_leftovers(path)
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
    del made  # not twice in memory
    return read(path)


def arrays_about(path: Path | Sequence[Path], what: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Arrays that are found by reading all of a file; once for its path, inode, size and times, by one process.

    Args:
        path: The file, or a folder with all that is in it; or several.
        what: Which arrays; part of the key.
        make: Reads the file.

    Raises:
        InputError: The file changed while it was read.
    """
    before = state_of(path)

    def made() -> dict[str, Any]:
        found = make()
        if state_of(path)[0] != before[0]:
            named = path if isinstance(path, Path) else ", ".join(map(str, path))
            raise InputError(f"{named} changed while it was read: wait until it is whole, then start again")
        return found

    if reads_again() or not is_settled(before):
        return made()
    kept_at = place_of(what, before[0]).with_suffix(".npz")
    return kept(kept_at, read_arrays, made, lambda file, arrays: write_arrays(file, **arrays))


class ParsedRecord(Protocol):
    """What the cache keeps: a dataclass of arrays, texts and numbers."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def validate(self) -> Self:
        """The record itself, once nothing is wrong with it."""
        ...


Record = TypeVar("Record", bound=ParsedRecord)

FORMAT = 2
"""Version of the ``.npz`` layout; part of every cache key."""


SHORT = 50
"""Letters of a file's name in that of the temporary one, which must not be too long where the name itself is not."""


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left of their writing of ``path``; only for who holds the lock of it."""
    for rest in path.parent.glob(f".{glob.escape(path.stem[:SHORT])}.????????.part{glob.escape(path.suffix)}"):
        rest.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it replaces ``path`` only when the block ends well.

    After a crash, an exception or a full disk the old file stands whole and no half file is left.

    Args:
        path: The file to write; missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers such as np.savez and pandas read the format from it.
    temporary = path.with_name(f".{path.stem[:SHORT]}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.add_note(f"{path} was not written; what stood there before is unchanged")
        raise


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    with atomic_write(path) as temporary:
        Path(temporary).write_text(json.dumps(content, indent=2, default=str) + "\n")


def cached_record(
    kind: type[Record],
    name: str,
    sources: Sequence[str],
    recipe: Mapping[str, Any],
    build: Callable[[], Record],
) -> Record:
    """The record that ``build`` parses, from the cache where it was parsed before.

    Args:
        kind: Class of the record, a dataclass of arrays, texts and numbers with a method ``validate``.
        name: First part of the cache file's name.
        sources: Registered sources that it is parsed from; their checksums are part of the key.
        recipe: Version of the parser and its arguments, the other part of the key.
        build: Parses the sources; called once however many processes ask at a time, and again for a damaged file.
    """
    hashes = {source: [file.sha256 for file in registry()[source].files] for source in sources}
    text = json.dumps({"format": FORMAT, "sources": hashes, "recipe": dict(recipe)}, sort_keys=True)
    path = own_home() / "parsed" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"
    return kept(
        path,
        lambda file: load_record(kind, file),
        lambda: build().validate(),
        lambda file, record: save_record(record, file),
    )


def save_record(record: ParsedRecord, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Write a record with all its columns to an ``.npz`` file, atomically and without pickles.

    Args:
        record: A dataclass of arrays, texts and numbers.
        path: The file.
        about: What is known of the record besides, in terms of JSON; see ``load_about``.
    """
    arrays: dict[str, np.ndarray] = {}
    plain: dict[str, Any] = {"format": FORMAT, "record": type(record).__name__}
    if about is not None:
        plain["about"] = dict(about)
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = _storable(field.name, value)
        elif field.name == "columns":
            arrays |= {f"columns/{key}": _storable(key, column) for key, column in value.items()}
        elif value is not None:
            plain[field.name] = dict(value) if isinstance(value, Mapping) else value
    write_arrays(path, **{"plain": np.array(json.dumps(plain, default=int)), **arrays})


def _storable(name: str, values: np.ndarray) -> np.ndarray:
    """Strings as a unicode array: an object array could only be stored as a pickle."""
    if values.dtype != object:
        return values
    if not all(isinstance(value, str) for value in values.ravel()):
        raise InputError(f"column {name!r} mixes types; make it all text or all numbers")
    return values.astype(str)


def load_record(kind: type[Record], path: str | Path) -> Record:
    """Read a record that ``save_record`` wrote.

    Raises:
        InputError: No such file, or it is truncated or another kind of file.
    """
    return load_about(kind, path)[0]


def load_about(
    kind: type[Record], path: str | Path, read: Callable[[str | Path], dict[str, np.ndarray]] = read_arrays
) -> tuple[Record, dict[str, Any]]:
    """The same, and what ``save_record`` was given about it; ``read`` may map the arrays."""
    arrays: dict[str, Any] = dict(read(path))
    try:
        plain = json.loads(str(arrays.pop("plain")))
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged or no record of torchcell ({error}); delete it, then run again") from error
    if plain.pop("record", None) != kind.__name__ or plain.pop("format", None) != FORMAT:
        raise InputError(f"{path} holds no {kind.__name__} of format {FORMAT}; delete it, then run again")
    about = plain.pop("about", {})
    columns = {name.removeprefix("columns/"): arrays.pop(name) for name in list(arrays) if "/" in name}
    if columns:
        plain["columns"] = columns
    # JSON knows no tuples
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    return kind(**arrays, **plain), about
