"""A user's own screen as a CSV or parquet file: read it, or only its perturbations, and write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from torchcell.data.errors import InputError, near, some
from torchcell.data.screen import KINDS, Screen
from torchcell.data.tables import MISSING, number_cells, read_table, text_cells, write_table

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("sample_id", "genes", "kinds", "levels", "query", "array")
"""Columns with a meaning of their own; none of them is a phenotype."""


def read_screen(
    path: str | Path,
    phenotypes: Sequence[str] | None = None,
    task: Literal["regression", "binary"] = "regression",
    name: str | None = None,
) -> Screen:
    """Read perturbation sets and what was measured, one row per set.

    Columns, in any order: ``genes`` (joined by ``|``); ``sample_id`` (else made from the genes); ``kinds`` (joined by
    ``|``, empty for absent); ``levels`` (joined by ``|``, optional); ``query`` and ``array`` (optional); phenotypes.

    Args:
        path: A ``.csv``, ``.tsv`` or ``.parquet`` file.
        phenotypes: Columns that hold phenotypes; by default every other column of numbers. The columns left over are
            kept in ``Screen.columns``.
        task: ``binary`` where every phenotype is 0 or 1.
        name: Of the screen; by default the file's name.

    Raises:
        InputError: Names the rows at fault: an empty set, a gene twice, an unknown kind, as many levels as there are
            not genes, an infinite phenotype or none at all, an id or a set that stands twice.
    """
    table = read_table(path)
    members = _members(table, path)
    others = [column for column in table.columns if column not in ROLES]
    values = {
        column: number_cells(table[column], column, path, lenient=phenotypes is not None and column not in phenotypes)
        for column in others
    }
    for wanted in phenotypes or ():
        if values.get(wanted) is None:
            problem = (
                "holds no numbers" if wanted in values else f"is not there; the nearest are {near(wanted, others)}"
            )
            raise InputError(f"{path}: the phenotype column {wanted!r} {problem}")
    measured = list(phenotypes or [column for column, numbers in values.items() if numbers is not None])
    if not measured:
        raise InputError(f"{path} has no column of numbers to learn from; it has {list(table.columns)}")
    phenotype = np.column_stack([numbers for column in measured if (numbers := values[column]) is not None])
    return replace(
        members,
        name=name or Path(path).stem,
        phenotype=phenotype.astype(np.float32),
        phenotype_names=tuple(measured),
        task=task,
        columns=_columns(table, values, measured),
    ).validate()


def read_perturbations(path: str | Path) -> Screen:
    """Read perturbation sets to predict: the file of ``read_screen``, its phenotypes not needed.

    Returns:
        A screen with ``phenotype`` of shape [n, 0]; every further column is kept in ``columns``.

    Raises:
        InputError: As ``read_screen``, but for the phenotypes.
    """
    table = read_table(path)
    members = _members(table, path)
    replace(members, phenotype=np.zeros((len(members), 1), dtype=np.float32), phenotype_names=("none",)).validate()
    others = [column for column in table.columns if column not in ROLES]
    values = {column: number_cells(table[column], column, path, lenient=True) for column in others}
    return replace(members, columns=_columns(table, values, []))


def write_screen(screen: Screen, path: str | Path) -> None:
    """Write a screen as ``read_screen`` reads it, atomically; replicates and truth are not part of the format.

    Args:
        screen: Its numeric ``columns`` are written too: name the phenotypes when you read such a file.
        path: A ``.csv``, ``.tsv`` or ``.parquet`` file.
    """
    import pandas as pd

    kinds, levels = np.array(KINDS)[screen.kind], screen.level
    bounds = list(zip(screen.ptr[:-1], screen.ptr[1:], strict=True))
    content: dict[str, object] = {
        "sample_id": screen.sample_id,
        "genes": ["|".join(genes) for genes in screen.sets()],
        "kinds": ["|".join(kinds[a:b]) for a, b in bounds],
    }
    if levels is not None:
        text = ["" if np.isnan(level) else str(level) for level in levels]
        content["levels"] = ["|".join(text[a:b]) for a, b in bounds]
    content |= {name: screen.columns[name] for name in ("query", "array") if name in screen.columns}
    content |= {name: screen.phenotype[:, i] for i, name in enumerate(screen.phenotype_names)}
    content |= {name: values for name, values in screen.columns.items() if name not in content}
    write_table(pd.DataFrame(content), path)


def _members(table: pd.DataFrame, path: str | Path) -> Screen:
    """The sets of a table, without phenotypes; refuses rows whose genes, kinds and levels don't fit together."""
    if "genes" not in table:
        hint = near("genes", list(table.columns)) or list(table.columns)
        raise InputError(f"{path} has no column 'genes' (names joined by '|'); the nearest are {hint}")
    n = len(table)
    genes = [[name.strip() for name in cell.split("|")] for cell in text_cells(table, "genes")]
    rows = text_cells(table, "sample_id") if "sample_id" in table else [f"row {i + 2}" for i in range(n)]
    _refuse(path, rows, [not all(names) for names in genes], "an empty gene set or gene name")
    _refuse(path, [f"row {i + 2}" for i in range(n)], [not row for row in rows], "no sample id")
    sizes = [len(names) for names in genes]
    kinds = [_parts(cell, size, "absent") for cell, size in zip(text_cells(table, "kinds"), sizes, strict=True)]
    levels = [_parts(cell, size, "") for cell, size in zip(text_cells(table, "levels"), sizes, strict=True)]
    for what, parts_of in (("kinds", kinds), ("levels", levels)):
        uneven = [len(parts) != size for parts, size in zip(parts_of, sizes, strict=True)]
        _refuse(path, rows, uneven, f"another number of {what} than of genes")
    unknown = [not set(parts) <= set(KINDS) for parts in kinds]
    _refuse(path, rows, unknown, f"a kind that is none of {', '.join(KINDS)}")
    wrong = [any(not np.isfinite(_number(v)) and v.lower() not in MISSING for v in parts) for parts in levels]
    _refuse(path, rows, wrong, "a level that is no finite number")
    ids = rows if "sample_id" in table else [_made_id(*row) for row in zip(genes, kinds, levels, strict=True)]
    level = np.array([_number(v) for parts in levels for v in parts], dtype=np.float32)
    names, gene = np.unique([name for row in genes for name in row], return_inverse=True)
    return Screen(
        name=Path(path).stem,
        genes=names,
        gene=gene.astype(np.int64),
        ptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        kind=np.array([KINDS.index(kind) for parts in kinds for kind in parts], dtype=np.int8),
        phenotype=np.zeros((n, 0), dtype=np.float32),
        phenotype_names=(),
        sample_id=np.array(ids, dtype=str),
        level=None if np.isnan(level).all() else level,
    )


def _parts(cell: str, size: int, default: str) -> list[str]:
    """The parts of a cell; an empty one stands for the default of every gene."""
    return [part.strip() or default for part in cell.split("|")] if cell else [default] * size


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _made_id(genes: list[str], kinds: list[str], levels: list[str]) -> str:
    """An id from the set itself: genes joined by ``|``, with kind and level where they are not the default."""
    tag = [
        gene + (f":{kind}" if kind != "absent" else "") + (f"={level}" if level else "")
        for gene, kind, level in zip(genes, kinds, levels, strict=True)
    ]
    return "|".join(tag)


def _columns(table: pd.DataFrame, values: dict[str, np.ndarray | None], measured: list[str]) -> dict[str, np.ndarray]:
    """What is kept beside the phenotypes: roles, numbers that were not asked for, truth values and text."""
    kept = {role: np.array(text_cells(table, role), dtype=str) for role in ("query", "array") if role in table}
    for name, numbers in values.items():
        if name in measured:
            continue
        text = np.array(text_cells(table, name), dtype=str)
        truth = np.isin(text, ("True", "False")).all()
        kept[name] = numbers if numbers is not None else (text == "True" if truth else text)
    return kept


def _refuse(path: str | Path, rows: list[str], bad: list[bool], what: str) -> None:
    """Raise one error that names the rows at fault, if there are any."""
    named = [row for row, wrong in zip(rows, bad, strict=True) if wrong]
    if named:
        raise InputError(f"{path}: {len(named)} row(s) with {what}: {some(named)}")
