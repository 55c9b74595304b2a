"""Where files are: the user's folders, relative paths of a run, and whether a path can be written."""

from __future__ import annotations

import atexit
import errno
import functools
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from torchcell.io.errors import InputError, some

log = logging.getLogger(__name__)


def data_home() -> Path:
    """Where downloads and parsed records are kept: ``TORCHCELL_DATA``, else the platform's cache folder."""
    return Path(os.environ.get("TORCHCELL_DATA") or _user_cache()).expanduser().resolve()


WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def own_home() -> Path:
    """Where what was computed here is kept: ``data_home``, or the platform's folder where others can write there.

    Parsed records, fitted baselines and facts on files are believed when they are read again, and a verdict rests on
    them; so they are this user's alone. Sources, which may be shared, are compared with their checksums. Where the
    platform's folder is another user's too, as after ``sudo``, nothing outlives this process.
    """
    home, own = data_home(), Path(_user_cache())
    found = _there(home)
    about = found.stat()
    shared = about.st_mode & WRITABLE_BY_OTHERS
    if found != home and about.st_mode & stat.S_ISVTX:  # as in /tmp: what we make there nobody takes away
        shared = 0
    if about.st_uid == os.getuid() and not shared:
        return home
    if _there(own).stat().st_uid == os.getuid():
        return own
    _say(own, "it is another user's")
    return _passing_home()


def is_own(folder: Path) -> bool:
    """Whether nobody else can write to a folder; one that is not there yet will be so made."""
    if not folder.is_dir():
        return True
    about = folder.stat()
    return about.st_uid == os.getuid() and not about.st_mode & WRITABLE_BY_OTHERS


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(one for one in (folder, *folder.parents) if one.is_dir())


@functools.cache
def _passing_home() -> Path:
    """A folder of this process, which goes away with it."""
    folder = Path(tempfile.mkdtemp(prefix="torchcell-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def make_own(folder: Path) -> None:
    """Make a folder of ``own_home`` that others cannot write to, whatever the umask.

    Raises:
        PermissionError: It is there and is another user's, or others can write to it: what it holds is not believed.
    """
    if not is_own(folder):
        raise PermissionError(errno.EACCES, "others may write there", str(folder))
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=0o755 & ~WRITABLE_BY_OTHERS, exist_ok=True)


REMEDIES = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there or raise the quota, or write elsewhere"
    ),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "name a folder that you may write to"),
    errno.ENAMETOOLONG: "a name has at most 255 bytes: choose a shorter one",
}
"""What to do about an error of the file system: full or over quota, read-only or not permitted, a long name."""


def unwritable(error: OSError, cause: str = "") -> str:
    """One line on a file that can't be written, with what to do; empty where that is not what the error says.

    Args:
        error: Of the file system.
        cause: A sentence that comes before what to do, e.g. what was left whole.
    """
    if error.errno not in REMEDIES:
        return ""
    where = str(error.filename2 or error.filename or "a file")
    where = where if len(where) < LONGEST else f"{where[:80]}..."
    what = "read or written" if error.errno in (errno.EACCES, errno.EPERM) else "written"
    notes = cause or "; ".join(getattr(error, "__notes__", ()))
    return "; ".join([f"{where} can't be {what}: {error.strerror}", *filter(None, [notes]), REMEDIES[error.errno]])


LONGEST = 300
"""Letters of a path in a message."""


def say_unwritable(folder: Path, error: OSError) -> None:
    """Warn, once a process and cache, that nothing can be kept in it."""
    home = data_home()
    _say(home if folder.is_relative_to(home) else folder, error.strerror or str(error))


@functools.cache
def _say(folder: Path, why: str) -> None:
    log.warning(
        "%s can't be written (%s): nothing is kept for the next run; TORCHCELL_DATA names another folder", folder, why
    )


def _user_cache() -> str:
    from platformdirs import user_cache_dir

    return user_cache_dir("torchcell")


def refuse_unwritable(path: str | Path, named: str) -> None:
    """Raise where no file could be made at ``path`` now; nothing is left there.

    Args:
        path: Of a file, or of a folder with files; missing folders on the way would be made.
        named: What the user calls it, e.g. ``out``.

    Raises:
        InputError: A read-only or full file system, no permission, or a file where a folder would have to be.
    """
    place = Path(path).absolute()
    folder = place.parent
    try:
        folder = place if place.is_dir() else next(parent for parent in place.parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0)
        why = "; ".join(filter(None, [f"{folder}: {error.strerror or error}", remedy]))
        raise InputError(f"{named}={path} can't be written: {why}") from error


OF_RUNS = ("checkpoints", "baselines", "figures")
"""Folders of a run that are read or written."""


def refuse_links(run: str | Path, named: bool = True) -> None:
    """Raise where a run's folder, which may be a stranger's, leads out of itself, or holds what is no plain file.

    By a link a file of the user would be read into a result, or overwritten. A pipe would be waited for.

    Args:
        run: Folder of a run, or of the scores of a checkpoint; one that is not there yet is fine.
        named: Whether the user named the folder, which may then be a link itself.

    Raises:
        InputError: The links by name, and what to do.
    """
    run = Path(run)
    inside = [run / name for name in OF_RUNS]
    entries = [run] * (not named) + [one for folder in (run, *inside) if folder.is_dir() for one in folder.iterdir()]
    home = run.resolve() if named else run.parent.resolve() / run.name
    odd = [one for one in entries if one.is_symlink() and not one.resolve().is_relative_to(home)]
    odd += [one for one in entries if one.exists() and not one.is_symlink() and not (one.is_file() or one.is_dir())]
    if odd:
        raise InputError(
            f"{run} leads to files outside of it, which could be any of yours: {some(odd)}; put a copy of what they "
            "lead to in their place"
        )


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
        InputError: It is in neither place; both are named. It is a device or a pipe.
    """
    path, further, ends = Path(path), _origin.get(), f"; {hint}" if hint else ""
    if path.exists():
        return _plain(path)
    if path.is_absolute():
        raise InputError(f"{what} {path}{ends}")
    places = [Path.cwd()]
    if further is not None and further.resolve() != places[0]:
        if (further / path).exists():
            return _plain(further / path)
        places.append(further)
    looked = " nor in ".join(map(str, places))
    neither = "neither" if len(places) > 1 else "not"
    raise InputError(f"{what} {path}; it is relative, and {neither} in {looked}{ends}")


def _plain(path: Path) -> Path:
    """The path of a file or a folder; a pipe has no end, and neither has ``/dev/zero``, to which a link may lead."""
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is neither a file nor a folder but a device or a pipe; write what it gives to a file")
    return path
