"""A user's screen as a table, and what ``predict`` says of perturbations whose like training never met."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from torchcell.core.prediction_notes import Notes, between, by_owner, is_outside, unlike_sizes
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError, near, some
from torchcell.io.labels import genes_of
from torchcell.io.parsed_files import parsed_file
from torchcell.io.table_text import BLANKS
from torchcell.io.tables import (
    MISSING,
    distinct_cells,
    number_cells,
    read_table,
    require_columns,
    single_precision,
    spoiled_names,
    text_column,
    truth_values,
    write_table,
)
from torchcell.io.text_arrays import numpy_texts
from torchcell.screen.record import KINDS, Screen
from torchcell.screen.spec import ScreenSpec

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


ROLES = ("sample_id", "genes", "kinds", "levels", "query", "array")
"""Columns with a meaning of their own; none of them is a phenotype."""
FEWEST_COUNTED = 10
"""Rows from which on a column of 0, 1, 2, ... or 1, 2, 3, ... is taken for row numbers."""
CONSTANT = "have one value only"


@configurable
def read_screen(
    path: str | Path,
    phenotypes: str | Sequence[str] | None = None,
    task: Literal["regression", "binary"] = "regression",
    name: str | None = None,
) -> Screen:
    """Read perturbation sets and what was measured, one row per set.

    Columns, in any order: ``genes`` (joined by ``|``); ``sample_id`` (else made from the genes); ``kinds`` or ``types``
    (joined by ``|``, empty for absent); ``levels`` (joined by ``|``, optional); ``query`` and ``array`` (optional);
    phenotypes.

    Args:
        path: A table, see ``tables.read_table``.
        phenotypes: Columns that hold phenotypes; by default every other column of numbers, or, where there are no
            numbers, of truth values. Empty and constant columns and row numbers (0, 1, 2, ... or 1, 2, 3, ...) are left
            out with a warning. The columns left over are kept in ``Screen.columns``.
        task: ``binary`` where every phenotype is 0 or 1.
        name: Of the screen; by default the file's name.

    Raises:
        InputError: Names the rows at fault: an empty set, a gene twice, genes joined by another sign, an unknown kind,
            another number of levels than of genes, an infinite or too large phenotype or none at all, an id or a set
            that stands twice. Or the columns at fault: a phenotype with one value only, a name that is nearly a role's.
    """
    chosen = [phenotypes] if isinstance(phenotypes, str) else list(phenotypes or ())
    name = name or Path(path).stem
    recipe = {"phenotypes": chosen, "task": task, "name": name}
    return parsed_file(Screen, path, recipe, Path(__file__), lambda: _read_screen(path, chosen, task, name))


def _read_screen(path: str | Path, chosen: list[str], task: Literal["regression", "binary"], name: str) -> Screen:
    table = _table(path)
    named = list(table.columns)
    members = _members(table, path)
    values, measured = _measured(table, path, chosen, named)
    _drop(table, [column for column, numbers in values.items() if numbers is not None])
    phenotype = np.column_stack([numbers for column in measured if (numbers := values[column]) is not None])
    screen = replace(
        members,
        name=name,
        phenotype=single_precision(path, phenotype, measured),
        phenotype_names=tuple(measured),
        task=task,
    ).validate()
    screen = replace(screen, columns=_columns(table, values, measured))
    constant = [
        f"{column} has one value only ({np.fmin.reduce(numbers):g})"
        for column, numbers in zip(measured, phenotype.T, strict=True)
        if _is_constant(numbers)
    ]
    if constant:
        raise InputError(f"{path}: {', '.join(constant)}; data.record.phenotypes=[NAME] chooses columns that vary")
    return screen


def _table(path: str | Path) -> pd.DataFrame:
    """The file's table; ``types``, as the pages call the perturbation types, is another name of ``kinds``."""
    table = read_table(path)
    if "types" not in table:
        return table
    if "kinds" in table:
        raise InputError(f"{path} has the columns 'kinds' and 'types', which mean the same; leave one out")
    return table.rename(columns={"types": "kinds"})


def _drop(table: pd.DataFrame, columns: list[str]) -> None:
    """Give back the memory of columns that are read; of millions of rows each takes a tenth of a gigabyte."""
    import pyarrow as pa

    for column in columns:
        del table[column]
    pa.default_memory_pool().release_unused()


def _measured(
    table: pd.DataFrame, path: str | Path, chosen: list[str], named: list[str]
) -> tuple[dict[str, np.ndarray | None], list[str]]:
    """The cells of each column that is no role, none where they are text, and the columns that hold phenotypes."""
    others = [column for column in table.columns if column not in ROLES]
    values = {
        column: number_cells(table[column], column, path, lenient=bool(chosen) and column not in chosen)
        for column in others
    }
    measured = chosen or _phenotypes(path, values)
    truth = {name: truth_values(table[name]) for name in measured or others if name in values and values[name] is None}
    values |= {name: cells for name, cells in truth.items() if cells is not None}
    measured = measured or [name for name, cells in truth.items() if cells is not None]
    for wanted in chosen:
        numbers = values.get(wanted)
        if numbers is None or np.isnan(numbers).all():
            problem = (
                f"holds no numbers{_no_numbers(table, wanted)}"
                if wanted in values
                else f"is not there; the nearest are {near(wanted, others)}"
            )
            raise InputError(f"{path}: the phenotype column {wanted!r} {problem}")
    if not measured:
        hint = "".join(
            f"; {column!r} holds no numbers{said}" for column in others if (said := _no_numbers(table, column))
        )
        raise InputError(f"{path} has no column of numbers to learn from; it has {named}{hint}")
    return values, measured


def is_measured(table: pd.DataFrame, path: str | Path) -> bool:
    """Whether a table holds phenotypes, well written or not: numbers, truth values, yes and no, percents."""

    def looks_so(column: str) -> bool:
        try:
            numbers = number_cells(table[column], column, path, lenient=False)
        except InputError:
            return True
        if numbers is not None:
            return _useless(numbers) in ("", CONSTANT)
        return truth_values(table[column]) is not None or bool(_no_numbers(table, column))

    return any(looks_so(column) for column in table.columns if column not in ROLES)


def _phenotypes(path: str | Path, values: dict[str, np.ndarray | None]) -> list[str]:
    """The columns of numbers, without empty and constant ones and row numbers; a warning names what is left out."""
    numbers = {column: cells for column, cells in values.items() if cells is not None}
    use = {column: _useless(cells) for column, cells in numbers.items()}
    if all(use.values()):  # then the error names the value
        use = {column: said.replace(CONSTANT, "") for column, said in use.items()}
    for what in dict.fromkeys(said for said in use.values() if said):
        columns = [column for column in use if use[column] == what]
        warnings.warn(
            f"{path}: columns that {what} are no phenotypes: {some(columns)}; "
            "data.record.phenotypes=[NAME] chooses others",
            stacklevel=4,
        )
    return [column for column, said in use.items() if not said]


def _useless(numbers: np.ndarray) -> str:
    """Why a column of numbers [n] is not taken for a phenotype; nothing where it is."""
    if np.isnan(numbers).all():
        return "are empty"
    n = len(numbers)
    if n >= FEWEST_COUNTED and numbers[0] in (0, 1) and np.array_equal(numbers, np.arange(n) + numbers[0]):
        return "count the rows"
    return CONSTANT if _is_constant(numbers) else ""


def _is_constant(numbers: np.ndarray) -> bool:
    """Whether several cells of a column hold a number, and all the same."""
    return bool(np.isfinite(numbers).sum() > 1 and np.fmin.reduce(numbers) == np.fmax.reduce(numbers))


def _no_numbers(table: pd.DataFrame, column: str) -> str:
    """What to do about a column of yes and no, or of percents; nothing for others."""
    words = np.unique(np.char.lower(distinct_cells(table, column)[0]))
    known = words[~np.isin(words, MISSING)]
    if len(known) and np.isin(known, ("yes", "no", "y", "n")).all():
        return f" but {some(known)}: write 1 and 0"
    percents = [word for word in known.tolist() if word.endswith("%")]
    return f" but {some(percents)}: leave out the %" if 2 * len(percents) > len(known) else ""


def read_perturbations(path: str | Path) -> Screen:
    """Read perturbation sets to predict: the file of ``read_screen``, its phenotypes not needed.

    Returns:
        A screen with ``phenotype`` of shape [n, 0]; every further column is kept in ``columns``.

    Raises:
        InputError: As ``read_screen``, but for the phenotypes.
    """
    table = _table(path)
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


@dataclass(frozen=True)
class _Parts:
    """What stands between the ``|`` of a column: part m is ``names[code[m]]`` [M], cell i has ``sizes[i]``."""

    names: np.ndarray
    code: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, cells: pa.ChunkedArray) -> _Parts:
        import pyarrow as pa
        import pyarrow.compute as pc

        parts, sizes = [], [np.empty(0, dtype=np.int32)]
        for chunk in cells.chunks:
            lists = pc.split_pattern(chunk, "|")
            parts.append(lists.flatten().dictionary_encode())
            sizes.append(pc.list_value_length(lists).to_numpy())
        held = [pc.utf8_trim(part.dictionary, BLANKS) for part in parts]
        names, number = np.unique(numpy_texts(pa.chunked_array(held, pa.string())), return_inverse=True)
        first = np.cumsum([0, *map(len, held)])
        code = np.empty(sum(map(len, parts)), dtype=np.int64)
        place = 0
        for part, start in zip(parts, first[:-1].tolist(), strict=True):
            code[place : place + len(part)] = number[start:][part.indices.to_numpy()]
            place += len(part)
        return cls(names, code, np.concatenate(sizes))

    def owner(self) -> np.ndarray:
        """The row of each part [M]."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        """The rows of all parts whose names [N] are chosen."""
        if not chosen.any():
            return np.empty(0, dtype=np.int64)
        rows: np.ndarray = self.owner()[chosen[self.code]]
        return rows

    def with_default(self, sizes: np.ndarray, default: str) -> _Parts:
        """One part a gene: an empty cell stands for the default of every gene, as an empty part does for its own."""
        empty = (self.sizes == 1) & (self.names[self.code[np.cumsum(self.sizes) - 1]] == "")
        names = np.append(np.where(self.names == "", default, self.names), default)
        code = np.full(sizes.sum(), len(names) - 1)
        code[np.repeat(~empty, sizes)] = self.code[np.repeat(~empty, self.sizes)]
        return _Parts(names, code, sizes)

    def uneven(self, sizes: np.ndarray) -> np.ndarray:
        """Whether a cell has neither as many parts as genes nor none [n]."""
        first = np.cumsum(self.sizes) - self.sizes
        return (self.sizes != sizes) & ~((self.sizes == 1) & (self.names[self.code[first]] == ""))


def _members(table: pd.DataFrame, path: str | Path) -> Screen:
    """The sets of a table, without phenotypes; refuses rows whose genes, kinds and levels don't fit together."""
    import pyarrow.compute as pc

    require_columns(path, table, ["genes"])
    _refuse_near_roles(table, path)
    n, given = len(table), text_column(table, "sample_id") if "sample_id" in table else None
    genes = _Parts.of(text_column(table, "genes"))
    _drop(table, [column for column in ("genes", "sample_id") if column in table])
    problems = []

    def find(bad: np.ndarray, what: str, by_row: bool = given is None) -> None:
        rows = np.unique(bad)
        if len(rows):
            named = [f"row {i + 2}" if by_row or given is None else given[i].as_py() for i in rows.tolist()]
            problems.append(f"{len(rows)} row(s) with {what}: {some(named)}")

    find(genes.rows(genes.names == ""), "an empty gene set or gene name")
    if given is not None:
        find(np.flatnonzero(pc.equal(given, "").to_numpy(zero_copy_only=False)), "no sample id", by_row=True)
    problems += _odd_genes(genes)
    parts: dict[str, _Parts | None] = {}
    for column, default in (("kinds", "absent"), ("levels", "")):
        if column not in table:
            parts[column] = _Parts(np.array([default]), np.broadcast_to(0, len(genes.code)), genes.sizes)
            continue
        found = _Parts.of(text_column(table, column))
        uneven = found.uneven(genes.sizes)
        find(np.flatnonzero(uneven), f"another number of {column} than of genes")
        parts[column] = None if uneven.any() else found.with_default(genes.sizes, default)
    kinds, levels = parts["kinds"], parts["levels"]
    if kinds is not None:
        find(kinds.rows(~np.isin(kinds.names, KINDS)), f"a kind that is none of {', '.join(KINDS)}")
    if levels is not None:
        numbers = np.array([_number(name) for name in levels.names.tolist()])
        wrong = ~np.isfinite(numbers) & ~np.isin(np.char.lower(levels.names), MISSING)
        find(levels.rows(wrong), "a level that is no finite number")
    if problems or kinds is None or levels is None:
        raise InputError(f"{path}: {'; '.join(problems)}")
    level = None
    if not np.isnan(numbers).all():
        level = single_precision(path, numbers[levels.code][:, None], ["levels"], levels.owner())[:, 0]
    return Screen(
        name=Path(path).stem,
        genes=genes.names,
        gene=genes.code,
        ptr=np.concatenate([[0], np.cumsum(genes.sizes)]).astype(np.int64),
        kind=np.array([KINDS.index(kind) for kind in kinds.names.tolist()], dtype=np.int8)[kinds.code],
        phenotype=np.zeros((n, 0), dtype=np.float32),
        phenotype_names=(),
        sample_id=_made_ids(genes, kinds, levels) if given is None else numpy_texts(given),
        level=level,
    )


def _refuse_near_roles(table: pd.DataFrame, path: str | Path) -> None:
    """Refuse columns whose names differ from a role in case, blanks or number alone: they would not be used."""
    roles = {_singular(role): role for role in ROLES}
    close = [f"{name} -> {role}" for name in table if name not in ROLES and (role := roles.get(_singular(str(name))))]
    if close:
        raise InputError(
            f"{path}: column names that are nearly those with a meaning: {some(close)}; rename such a column, to "
            "another name if it is something else"
        )


def _singular(name: str) -> str:
    plain = re.sub(r"[\s_.-]", "", name.lower())
    return re.sub(r"ies$", "y", plain).removesuffix("s")


def _odd_genes(genes: _Parts) -> list[str]:
    """What is wrong with names: a spreadsheet spoiled them, or the genes of a set are joined by another sign."""
    names = genes.names.tolist()
    problems = []
    if spoiled_names("genes", names):
        problems.append(spoiled_names("genes", genes.names[genes.code].tolist(), genes.owner()))
    several = np.array(["," in name or ";" in name or len(genes_of(name)) > 1 for name in names])
    if several.any():
        odd = genes.code[several[genes.code]]
        words = [f"row {i + 2}: {names[k]}" for i, k in zip(genes.rows(several), odd, strict=True)]
        problems.append(
            f"{len(words):,} gene name(s) with ',', ';' or '+' in them: {some(words)}; genes of a set are joined by "
            "'|', as in A|B"
        )
    parts = [re.split(r"[\s_/:]+", name) for name in names]
    joined = [name for name, found in zip(names, parts, strict=True) if len(found) > 1]
    if 2 * len(joined) > len(names) > len({part for found in parts for part in found}):
        warnings.warn(
            f"each of {some(joined)} is taken for one gene; genes of a set are joined by '|', as in A|B", stacklevel=4
        )
    return problems


def _made_ids(genes: _Parts, kinds: _Parts, levels: _Parts) -> np.ndarray:
    """Ids from the sets [n]: genes joined by ``|``, with kind and level where they are not the default."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = np.where(kinds.names == "absent", "", np.char.add(":", kinds.names))
    level = np.where(levels.names == "", "", np.char.add("=", levels.names))
    parts = [
        pa.array(names.tolist(), pa.string()).take(pa.array(code))
        for names, code in ((genes.names, genes.code), (kind, kinds.code), (level, levels.code))
    ]
    members = pc.binary_join_element_wise(*parts, "")
    ends = np.concatenate([[0], np.cumsum(genes.sizes)]).astype(np.int32)
    return numpy_texts(pc.binary_join(pa.ListArray.from_arrays(ends, members), "|"))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _columns(table: pd.DataFrame, values: dict[str, np.ndarray | None], measured: list[str]) -> dict[str, np.ndarray]:
    """What is kept beside the phenotypes: roles, numbers that are no phenotypes, truth values and text."""
    kept = {role: _texts(table, role) for role in ("query", "array") if role in table}
    for name, numbers in values.items():
        if name in measured:
            continue
        text = _texts(table, name) if numbers is None else np.empty(0, dtype=str)
        truth = numbers is None and bool(((text == "True") | (text == "False")).all())
        kept[name] = numbers if numbers is not None else (text == "True" if truth else text)
    return kept


def _texts(table: pd.DataFrame, column: str) -> np.ndarray:
    words, number = distinct_cells(table, column)
    return words.take(number) if 2 * len(words) < len(number) else numpy_texts(text_column(table, column))


def screen_notes(record: Screen, spec: ScreenSpec, reads_levels: bool) -> Notes:
    """Set sizes, genes and perturbation types without training samples; levels that are not read, or out of range.

    Args:
        record: The request.
        spec: Of the checkpoint.
        reads_levels: Whether the model does.
    """
    owner, n, notes = record.owner, len(record), Notes()
    notes["set of another size"] = unlike_sizes("set", record.sizes.tolist(), spec.trained_sizes)
    trained = np.array(spec.genes, dtype=str)[spec.trained_genes.numpy()]
    new = ~np.isin(record.genes, trained)[record.gene]
    names = record.genes[record.gene[new]]
    notes["gene without training samples"] = by_owner("no training sample of", names, owner[new], n)
    new = ~np.isin(np.array(KINDS), spec.kinds)[record.kind]
    names = np.array(KINDS)[record.kind[new]]
    notes["perturbation type unseen in training"] = by_owner("unseen perturbation type", names, owner[new], n)
    if record.level is None:
        return notes
    if not reads_levels:
        notes["level that the model does not read"] = [
            "levels are not read by this model" if given else ""
            for given in np.bincount(owner[~np.isnan(record.level)], minlength=n).tolist()
        ]
    elif spec.trained_levels:
        outside = is_outside(record.level, spec.trained_levels)
        text = f"trained on levels of {between(spec.trained_levels)}, not"
        names = np.array([f"{value:.4g}" for value in record.level[outside].tolist()], dtype=str)
        notes["level outside the trained range"] = by_owner(text, names, owner[outside], n)
    return notes
