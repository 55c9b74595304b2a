"""The one error that bad input raises: what was wrong, which rows or keys, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Bad input by the person at the keyboard; the message alone must be enough to mend it."""


def some(items: Iterable[object], most: int = 5) -> str:
    """Name the first few ``items`` and count the rest, e.g. ``'YAL001C', 'YAL002W' and 7 more``."""
    listed = [repr(str(item)) for item in items]
    named = ", ".join(listed[:most])
    return named if len(listed) <= most else f"{named} and {len(listed) - most} more"


def near(word: str, valid: Sequence[str], most: int = 3) -> list[str]:
    """The valid names most like ``word``, best first; compares without regard to case."""
    folded = {name.lower(): name for name in valid}
    return [folded[hit] for hit in difflib.get_close_matches(word.lower(), list(folded), n=most, cutoff=0.5)]
