"""Files of a finished run, which may be a stranger's: they have what is read of them, or one line says what not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchcell.io.errors import InputError, some

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 300
"""Digits of a whole number; a longer one is read as infinite, since neither Python nor a table can hold it."""


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """The content of a file that ``write_json`` wrote.

    Args:
        path: The file.
        keys: That it must have.

    Raises:
        InputError: It can't be read, is no mapping, or lacks keys, which are named.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_int=_whole)
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise InputError(f"{path} can't be read ({why}); copy it again, or leave its run out") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__} and no mapping of keys; torchcell did not write it")
    if missing := [key for key in keys if key not in content]:
        raise InputError(f"{path} has no {some(missing)}; it was written by another version, or changed since")
    return content


def _whole(text: str) -> float:
    return int(text) if len(text) <= DIGITS else float(f"{'-' if text.startswith('-') else ''}inf")


def read_rows(path: Path) -> pd.DataFrame:
    """Any table that a run wrote.

    Raises:
        InputError: It can't be read.
    """
    import pandas as pd

    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{path} can't be read ({why}); copy it again, or leave its run out") from error


VERDICT = {"text": str, "metric": str}
"""Keys of the verdict in ``metrics.json`` that are shown, and what they are."""


def read_summary(path: Path) -> dict[str, Any]:
    """The content of a run's ``metrics.json`` with what is shown of it.

    Raises:
        InputError: As ``read_json``; it holds no verdict, or one of another shape.
    """
    content = read_json(path, "verdict", "model")
    verdict = content["verdict"]
    shown = isinstance(verdict, dict) and all(isinstance(verdict.get(key), kind) for key, kind in VERDICT.items())
    parts = {"lower_is_better": list, "comparators": dict | list}
    odd = [key for key, kind in parts.items() if content.get(key) is not None and not isinstance(content[key], kind)]
    names = content.get("lower_is_better") or []
    beside = verdict.get("calibration") or [] if shown else []
    shown = shown and isinstance(beside, list) and all(isinstance(one, dict) for one in beside)
    if not shown or odd or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} holds no verdict that can be shown; python -m torchcell.evaluate writes it again")
    return content


SCORES = ("value", "low", "high")
"""Columns of numbers in a run's ``metrics.csv``."""


def read_scores(path: Path) -> pd.DataFrame:
    """The table of a run's ``metrics.csv``.

    Raises:
        InputError: It can't be read, lacks columns, or has cells that are no numbers; all are named.
    """
    import pandas as pd

    table = read_rows(path)
    if missing := [name for name in ("system", "part", "metric", *SCORES) if name not in table]:
        raise InputError(f"{path} has no column {some(missing)}; torchcell did not write it")
    for name in SCORES:
        if table[name].dtype.kind in "fiu":
            table[name] = table[name].astype(float)
            continue
        numbers = pd.to_numeric(table[name].astype(str).str.slice(0, DIGITS), errors="coerce").astype(float)
        if odd := [str(cell)[:40] for cell in table.loc[numbers.isna() & table[name].notna(), name]]:
            raise InputError(f"{path}: the column {name!r} holds what is no number: {some(odd)}")
        table[name] = numbers
    return table
