"""Whether a file can be written, asked before the work that makes it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torchcell.data.errors import InputError


def refuse_unwritable(path: str | Path, named: str) -> None:
    """Raise where no file could be made at ``path`` now; nothing is left there.

    Args:
        path: Of a file, or of a folder with files; missing folders on the way would be made.
        named: What the user calls it, e.g. ``out``.

    Raises:
        InputError: A read-only or full file system, no permission, or a file where a folder would have to be.
    """
    place = Path(path).absolute()
    folder = place if place.is_dir() else next(parent for parent in place.parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{named}={path} can't be written: {folder}: {error.strerror or error}") from error
