"""Registered public sources: each file from the mirror folder, else from its URL, checked by sha256."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path

from torchcell.io.errors import InputError, near
from torchcell.io.file_facts import remembered
from torchcell.io.locks import locked
from torchcell.io.paths import data_home

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceFile:
    """One file of a source; ``path`` is its place below the mirror and below the data folder."""

    path: str
    bytes: int
    sha256: str
    url: str = ""

    @property
    def name(self) -> str:
        """The file's own name, the key in what ``fetch`` returns."""
        return Path(self.path).name


@dataclass(frozen=True)
class Source:
    """A public data set: its files, what they hold, under which licence or to be cited how."""

    name: str
    content: str
    licence: str
    files: tuple[SourceFile, ...]
    rebuild: str = ""


@cache
def registry() -> dict[str, Source]:
    """All registered sources by name, in the order of ``registry.toml``."""
    text = package_files("torchcell.io").joinpath("registry.toml").read_text(encoding="utf-8")
    return {
        name: Source(name, **{**entry, "files": tuple(SourceFile(**file) for file in entry["files"])})
        for name, entry in tomllib.loads(text).items()
    }


def source(name: str) -> Source:
    """The source of that name.

    Raises:
        InputError: An unknown name; the message lists the nearest ones.
    """
    if name not in registry():
        hint = near(name, list(registry())) or list(registry())
        raise InputError(f"no source named {name!r}; the nearest are: {', '.join(hint)}")
    return registry()[name]


def mirror() -> Path | None:
    """The folder named by ``TORCHCELL_MIRROR``, or None where the variable is not set.

    Raises:
        InputError: The variable names no folder.
    """
    named = os.environ.get("TORCHCELL_MIRROR")
    if not named:
        return None
    folder = Path(named).expanduser().resolve()
    if not folder.is_dir():
        raise InputError(f"TORCHCELL_MIRROR names {folder}, which is no folder; mend or unset the variable")
    return folder


def fetch(name: str) -> dict[str, Path]:
    """The files of a source on this machine, whole and checked; downloads what is missing.

    A file in the mirror folder is used where it stands.

    Args:
        name: A name in the registry; ``python -m torchcell.data list`` shows them.

    Returns:
        File name -> path.

    Raises:
        InputError: Unknown name, a damaged file, no way to get a file. The message names the file and
            the remedy.
    """
    wanted = source(name)
    return {file.name: _locate(file, wanted) for file in wanted.files}


def state(file: SourceFile) -> str:
    """Where a file is to be had now: ``mirror``, ``cached`` or ``missing``; looks only whether it exists."""
    folder = mirror()
    if folder is not None and (folder / file.path).is_file():
        return "mirror"
    return "cached" if _cached_path(file).is_file() else "missing"


def _cached_path(file: SourceFile) -> Path:
    return data_home() / "sources" / file.path


def _locate(file: SourceFile, wanted: Source) -> Path:
    folder, cached = mirror(), _cached_path(file)
    if folder is not None and (folder / file.path).is_file():
        _check(folder / file.path, file, "copy it to the mirror again, or unset TORCHCELL_MIRROR")
        return folder / file.path
    if not cached.is_file():
        if not file.url:
            raise InputError(_mirror_only(file, wanted, folder))
        try:
            _download(file, cached, folder)
        except OSError as error:
            raise InputError(
                f"{file.path} can't be kept in {cached.parent} ({error.strerror or error}); name another folder for "
                "downloads by TORCHCELL_DATA"
            ) from error
    _check(cached, file, "delete it, then fetch it again")
    return cached


def _mirror_only(file: SourceFile, wanted: Source, folder: Path | None) -> str:
    where = f"it is not in {folder}" if folder else "TORCHCELL_MIRROR is not set"
    return (
        f"{file.path} is mirror only: it has no public URL, and {where}. Set TORCHCELL_MIRROR to a folder that holds "
        f"{file.path}. It is made from: {wanted.rebuild} ({wanted.licence})"
    )


def _check(path: Path, file: SourceFile, remedy: str) -> None:
    """Compare the checksum; that a file was found whole is remembered until it changes."""

    def compare() -> str:
        if damage := _damage(path, file):
            raise InputError(f"{path} {damage}; {remedy}")
        return "whole"

    remembered(path, f"sha256 {file.sha256}", compare)


def _damage(path: Path, file: SourceFile) -> str:
    """What is wrong with a file, or an empty string."""
    with path.open("rb") as handle:
        head = handle.read(512).lstrip().lower()
        handle.seek(0)
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found == file.sha256:
        return ""
    if head.startswith((b"<!doctype html", b"<html")):
        return "is a web page, most likely an error page, where data was expected"
    size = path.stat().st_size
    if size < file.bytes:
        return f"is truncated: {size:,} of {file.bytes:,} bytes"
    return f"has the wrong checksum: sha256 {found[:16]}..., expected {file.sha256[:16]}..."


def _download(file: SourceFile, target: Path, folder: Path | None) -> None:
    """Get a file from its URL into the data folder; it appears there only when it is whole."""
    from pooch import HTTPDownloader
    from requests.exceptions import RequestException

    from torchcell.io.cache import WAIT_S, atomic_write, remove_leftovers

    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(Path(f"{target}.lock"), WAIT_S):
        if target.is_file():  # another process has just brought it
            return
        remove_leftovers(target)
        log.info("downloading %s (%s bytes) from %s", file.path, f"{file.bytes:,}", file.url)
        with atomic_write(target) as temporary:
            try:
                HTTPDownloader(progressbar=sys.stderr.isatty())(file.url, str(temporary), None)
            except RequestException as error:
                tried = f"the mirror {folder} (not there)" if folder else "no mirror (TORCHCELL_MIRROR is not set)"
                raise InputError(
                    f"cannot get {file.path}; tried: {tried}, then {file.url} ({_reason(error)}). Set TORCHCELL_MIRROR "
                    "to a folder that holds the file, or try again with a network"
                ) from None
            damage = _damage(temporary, file)
            if damage:
                raise InputError(
                    f"what {file.url} sent for {file.path} {damage}; nothing was kept. Try again later, or set "
                    "TORCHCELL_MIRROR to a folder that holds the file"
                )


def _reason(error: Exception) -> str:
    """The root of a network error in a few words: requests wraps it three times."""
    root: BaseException = error
    while root.__context__ is not None:
        root = root.__context__
    return f"{type(error).__name__}: {str(root)[:160]}"
