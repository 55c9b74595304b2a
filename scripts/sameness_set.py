"""What a set of ``sameness.py`` holds, and how its names are mapped to later ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "sameness.json"
NOT_COMPARED = ("seconds", "peak_mb", "samples_per_s", "content")
"""Keys of ``metrics.json`` that are of the machine, the last to the last bit."""
KEYS = {"metrics.csv": ("part", "system", "metric"), "comparisons.csv": ("baseline", "metric")}
"""Columns that name a row; the others are its values."""


class IncompleteSet(Exception):
    """A set that is empty, not whole, or of other code."""


def read_rename(path: Path | None) -> dict[str, str]:
    """The lines ``old=new`` of a file; empty ones and those that begin with ``#`` are passed over."""
    found: dict[str, str] = {}
    lines = [] if path is None else path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            old, equals, new = (part.strip() for part in line.partition("="))
            if not (old and equals and new):
                raise IncompleteSet(f"{path}, line {number}: {line!r} is not old=new")
            found[old] = new
    return found


def renamed(name: str, rename: Mapping[str, str]) -> str:
    """``name`` with each old name that stands in it as a whole replaced, the longest first."""
    for old in sorted(rename, key=len, reverse=True):
        name = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _, new=rename[old]: new, name)
    return name


def parts_of(folder: Path, only: Sequence[str] = ()) -> dict[str, list[str]]:
    """Part -> its files, of a whole set.

    Args:
        folder: The set.
        only: The parts that are needed; none: all that were to be frozen.

    Raises:
        IncompleteSet: One of them is not there, or failed; a file of them is gone or empty.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text())
        parts, planned = content["parts"], [*dict.fromkeys([*content["planned"], *content["parts"]])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IncompleteSet(f"{folder} holds no set of `sameness.py freeze` ({type(error).__name__})") from error
    wrong = []
    for name in only or planned:
        if parts.get(name, {}).get("status") != "done":
            wrong.append(f"{name} failed" if name in parts else f"{name} is not there")
            continue
        files = [folder / name / file for file in parts[name]["files"]]
        lost = [file.name for file in files if not file.is_file() or not file.stat().st_size]
        wrong += [f"{name}/{file} is gone or empty" for file in lost] if files else [f"{name} is empty"]
    if wrong or not planned:
        raise IncompleteSet(
            f"{folder} is not whole: {', '.join(wrong) or 'it is empty'}; freeze it again to make what is "
            "missing, or compare --only what is there"
        )
    return {name: parts[name]["files"] for name in only or planned}


def leaves_of(file: Path) -> dict[str, Any]:
    """Name -> number, text, yes or no: all that a table, a config or a list holds."""
    import pandas as pd
    import yaml

    if file.name == "ids.txt":
        return dict.fromkeys(file.read_text().split("\n")[:-1], "there")
    if file.name == "targets.json":  # the figures are of the machine
        rows = json.loads(file.read_text())
        return {row["what"]: f"{row['wanted']} {'met' if row['met'] else 'missed'}" for row in rows}
    if file.suffix == ".yaml":
        return dict(_leaves(yaml.safe_load(file.read_text())))
    if file.suffix == ".json":
        content = json.loads(file.read_text())
        return dict(_leaves({key: value for key, value in content.items() if key not in NOT_COMPARED}))
    table = pd.read_csv(file)
    keys = [key for key in KEYS.get(file.name, ()) if key in table]
    names = ["/".join(row) for row in table[keys].astype(str).to_numpy().tolist()]
    values = {column: table[column].tolist() for column in table if column not in keys}
    return {
        f"{name} {column}": value for column, cells in values.items() for name, value in zip(names, cells, strict=True)
    }


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list) and node:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def systems_of(file: Path) -> dict[str, pd.DataFrame]:
    """System -> its values, one row a sample and one column an output, of a file of predictions."""
    import pandas as pd

    if file.suffix == ".h5ad":
        import anndata

        table = anndata.read_h5ad(file)
        values = {"measured": table.X, **dict(table.layers)}
        return {name: pd.DataFrame(np.asarray(x), table.obs_names, table.var_names) for name, x in values.items()}
    long = pd.read_parquet(file)
    keys = [key for key in ("sample_id", "target") if key in long]
    found = {}
    for name in long.columns.difference(keys, sort=False):
        found[str(name)] = long.set_index(keys)[[name]]
    return found
