"""A progress bar for loops outside the trainer, on the error stream so that tables can be piped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield ``items`` under a bar that names ``what`` is done; silent where there is a single item."""
    from tqdm import tqdm

    total = len(items) if isinstance(items, Sized) else None
    yield from tqdm(items, desc=what, total=total, leave=False, disable=total is not None and total < 2)
