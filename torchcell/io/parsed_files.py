"""A user's large file is parsed once: the record is kept in the user's cache until the file or the code changes."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from torchcell.io.cache import ParsedRecord, kept, load_about, mapped_arrays, save_record
from torchcell.io.file_facts import reads_again, settled_state
from torchcell.io.in_memory import InMemory
from torchcell.io.paths import located, own_home

LARGE = 2**24
"""Bytes from which on reading a file takes seconds, and a copy of what it holds is worth its place."""
UNUSED_S = 7 * 24 * 3600.0
"""Age from which on what was kept of an earlier state of a file is removed; runs may look at a younger one."""


class KnownRecord(ParsedRecord, Protocol):
    """A record that takes over what its values are known by."""

    def fingerprint(self) -> str:
        """A hash over its values."""
        ...

    def known(self, fingerprint: str) -> Self:
        """The record itself, valid and with this fingerprint."""
        ...


Record = TypeVar("Record", bound=KnownRecord)


def parsed_file(
    kind: type[Record], path: str | Path, recipe: Mapping[str, Any], code: Path, build: Callable[[], Record]
) -> Record:
    """The valid record that ``build`` parses of a file, from the cache where this file was parsed before.

    However many processes ask at a time, one parses and the others wait for it; all map what was kept, so that it is in
    memory once. Warnings are said again. What was kept of an earlier state of the file is removed after a week.
    ``data.verify=full`` parses again.

    Args:
        kind: Class of the record.
        path: A file; what is small or in memory is parsed each time.
        recipe: Arguments of the parser.
        code: A module of the package that parses: another version of it, or of ``torchcell.io``, parses again.
        build: Parses the file.
    """
    if isinstance(path, InMemory):
        return build()
    file = located(path)
    state = settled_state(file)
    if not state or file.stat().st_size < LARGE or reads_again():
        return build()
    place = own_home() / "parsed"
    stem = f"file-{_hash(str(file.resolve()), kind.__name__, json.dumps(dict(recipe), sort_keys=True))}"
    kept_at = place / f"{stem}-{_hash(state, *_source(code))}.npz"

    def make() -> tuple[Record, dict[str, Any]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            record = build()
        said = [str(warning.message) for warning in caught]
        return record, {"fingerprint": record.fingerprint(), "warnings": said}

    def write(at: Path, made: tuple[Record, dict[str, Any]]) -> None:
        save_record(made[0], at, made[1])
        for earlier in place.glob(f"{stem}-*.npz"):
            if earlier != at and time.time() - earlier.stat().st_mtime > UNUSED_S:
                earlier.unlink(missing_ok=True)

    record, about = kept(kept_at, lambda at: load_about(kind, at, mapped_arrays), make, write)
    for text in about["warnings"]:
        warnings.warn(text, stacklevel=4)
    return record.known(about["fingerprint"])


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _source(code: Path) -> list[str]:
    """Source of the module's folder and of this one."""
    folders = {code.parent, Path(__file__).parent}
    return [file.read_text() for folder in sorted(folders) for file in sorted(folder.glob("*.py"))]
