"""Folders that torchcell keeps things in between runs; whoever can't write there goes on without."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def data_home() -> Path:
    """Where downloads and parsed records are kept: ``TORCHCELL_DATA``, else the platform's cache folder."""
    return Path(os.environ.get("TORCHCELL_DATA") or _user_cache()).expanduser().resolve()


def own_home() -> Path:
    """What is remembered for this user alone: ``data_home``, or the platform's folder where that is another user's."""
    home = data_home()
    there = next(folder for folder in (home, *home.parents) if folder.is_dir())
    return home if there.stat().st_uid == os.getuid() else Path(_user_cache())


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
