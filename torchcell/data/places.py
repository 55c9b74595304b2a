"""Where a relative path leads: from the working directory, else from the one in which the run was started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from torchcell.data.errors import InputError

_origin: ContextVar[Path | None] = ContextVar("origin", default=None)


def origin() -> Path:
    """Where relative paths of this run lead, for those who read them again later."""
    return _origin.get() or Path.cwd()


@contextmanager
def looking_in(origin: str | Path | None) -> Iterator[None]:
    """Within the block relative paths are looked up below ``origin`` too; none: in the working directory alone."""
    token = _origin.set(None if origin is None else Path(origin))
    try:
        yield
    finally:
        _origin.reset(token)


def located(path: str | Path, what: str = "no such file:", hint: str = "") -> Path:
    """The file or folder that ``path`` names; a path that was relative to the run's own folder is made absolute.

    Args:
        path: As a config or a user has it.
        what: Begins the error.
        hint: Ends it.

    Raises:
        InputError: It is in neither place; both are named.
    """
    path, further, ends = Path(path), _origin.get(), f"; {hint}" if hint else ""
    if path.exists():
        return path
    if path.is_absolute():
        raise InputError(f"{what} {path}{ends}")
    places = [Path.cwd()]
    if further is not None and further.resolve() != places[0]:
        if (further / path).exists():
            return further / path
        places.append(further)
    looked = " nor in ".join(map(str, places))
    neither = "neither" if len(places) > 1 else "not"
    raise InputError(f"{what} {path}; it is relative, and {neither} in {looked}{ends}")
