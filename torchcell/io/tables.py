"""The one reader of every table that a user gives, and its cells as text, as numbers and as names of genes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from torchcell.io.cache import atomic_write
from torchcell.io.ceiling import LETTER, ceiling, refuse_bomb, refuse_wide
from torchcell.io.errors import InputError, near, some
from torchcell.io.in_memory import InMemory
from torchcell.io.matrices import LARGEST
from torchcell.io.paths import located
from torchcell.io.table_text import BLANKS, parse_text
from torchcell.io.text_arrays import may_have_blanks, numpy_texts

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


MISSING = (
    "", "na", "nan", "-nan", "n/a", "<na>", "null", "none", "#n/a", "#n/a n/a", "#na", "#value!", "#div/0!", "#ref!",
    "#name?", "#num!", "#null!",
)  # fmt: skip
"""What a missing number looks like in a text file, in any case."""

ENDINGS = (".csv", ".tsv", ".parquet")
"""Of the files that can be written; what is read may also be ``.txt``, ``.tab`` or ``.sif``, and ``.gz`` may follow."""
TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".tab", ".sif")
_NAMELESS = re.compile(r"|Unnamed: \d+(\.\d+)?(_level_\d+)?|__index_level_\d+__")
_DECIMAL_COMMA = re.compile(r"[-+]?\d[\d.]*(,[\d.]+)+([eE][-+]?\d+)?")
_MONTH = "jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec|mrz|mär|mai|okt|dez"
_DATE = re.compile(
    rf"\d{{1,2}}[-. ]{{1,2}}(?i:{_MONTH})|(?:{_MONTH.title()})-\d\d"
    r"|\d{4}-\d\d-\d\d([ T]\d\d:\d\d.*)?|\d{1,2}/\d{1,2}/\d{2,4}|\d{1,2}\.\d{1,2}\.\d{2,4}|\d(\.\d+)?E\+\d+"
)
_SHEET_ERROR = re.compile(r"#[A-Z/0]+[!?]?")


def read_table(path: str | Path | InMemory, expected: Sequence[str] = (), comment: str = "") -> pd.DataFrame:
    """Read a text table, every cell as text without blanks around it, or a parquet file with the types it has.

    Encoding, compression and separator (comma, semicolon, tab) are found out from the content. A column without a name
    that numbers the rows, as ``df.to_csv()`` writes it, is left out with a warning. Lists of text in a parquet file are
    joined by ``|``.

    Args:
        path: A ``.csv``, ``.tsv``, ``.txt``, ``.tab``, ``.sif`` or ``.parquet`` file, ``.gz`` may follow; or a table in
            memory.
        expected: Columns of a file that may lack the header; see ``table_text.parse_text``.
        comment: Lines before the header that begin with it are left out.

    Raises:
        InputError: No such file, an unknown ending, no rows, a file that can't be read, rows that don't fit the header,
            columns without a name or with the same name.
    """
    import pyarrow as pa

    if isinstance(path, InMemory):
        names, cells = _texts_joined(path.to_arrow())
    else:
        path = located(path)
        kind = path.name.removesuffix(".gz").rpartition(".")[2]
        if f".{kind}" not in (*TEXT_ENDINGS, ".parquet"):
            raise InputError(f"{path}: a table must be a {', '.join(ENDINGS)} file")
        try:
            names, cells = _parse_parquet(path) if kind == "parquet" else parse_text(path, expected, comment)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise InputError(f"{path} can't be read as {kind}: {error}") from error
    pa.default_memory_pool().release_unused()  # what a parser of many rows has left
    if not cells.num_rows:
        raise InputError(f"{path} has no rows")
    columns = [_trimmed(column) if pa.types.is_string(column.type) else column for column in cells]
    return _frame({names[i]: columns[i] for i in _named(path, names, columns)})


def _parse_parquet(path: Path) -> tuple[list[str], pa.Table]:
    """Names and columns; text is text, however it was stored, and an index with a name is a column."""
    return _texts_joined(plain_parquet(path))


def plain_parquet(path: Path) -> pa.Table:
    """The content of a parquet file, once it is known to go with its size.

    Raises:
        InputError: It holds more; pyarrow's errors for a damaged one.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        about = file.metadata
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    size = sum(max(chunk.total_uncompressed_size, chunk.num_values * 8) for chunk in chunks)
    refuse_bomb(path, size, path.stat().st_size, f"its {about.num_rows:,} rows", at_once=True)
    # A text that stands in a thousand rows is stored once. It is read so too, and looked up before it is copied.
    texts = sorted({chunk.path_in_schema for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"})
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        table = file.read()
    refuse_bomb(path, sum(map(_bytes, table.columns)), path.stat().st_size, "its texts", at_once=True)
    return table


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cells without blanks around them; chunks that have none stay as they are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pa.chunked_array(
        [pc.utf8_trim(chunk, BLANKS) if may_have_blanks(chunk) else chunk for chunk in column.chunks], column.type
    )


def _texts_joined(table: pa.Table) -> tuple[list[str], pa.Table]:
    """Names and columns; text in one type, lists of it joined by ``|``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for i, field in enumerate(table.schema):
        kind, column = _stored(field.type), table.column(i)
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            table = table.set_column(i, field.name, column.cast(pa.string()))
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            table = table.set_column(i, field.name, column.cast(kind))
        elif (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_string(_stored(kind.value_type)):
            joined = pc.binary_join(column.cast(pa.list_(pa.string())), "|")
            table = table.set_column(i, field.name, joined)
    # As of a text table: an end of line in a name could write a line of its own under ours.
    return [re.sub(r"\s*[\r\n]+\s*", " ", name.strip(BLANKS)) for name in table.column_names], table


def _stored(kind: pa.DataType) -> pa.DataType:
    """The type of the values, whether they stand in a dictionary or not."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _bytes(column: pa.ChunkedArray) -> int:
    """Bytes of a column once each cell has a text of its own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for chunk in column.chunks:
        while pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type):
            chunk = chunk.flatten()
        if not pa.types.is_dictionary(chunk.type):
            total += chunk.nbytes
            continue
        lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
        total += int(pc.sum(lengths.take(chunk.indices)).as_py() or 0) + 4 * len(chunk)
    return total


def _named(path: Path | InMemory, names: list[str], columns: list[pa.ChunkedArray]) -> list[int]:
    """Positions of the columns to keep; refuses nameless ones that are no row numbers, and names that stand twice."""
    kept: list[int] = []
    nameless, row_numbers = [], []
    for i, (name, column) in enumerate(zip(names, columns, strict=True)):
        if not _NAMELESS.fullmatch(name):
            kept.append(i)
        elif (not kept or name.startswith("__index")) and (limits := _numbers_rows(column)):
            row_numbers.append(limits)
        elif first := next((str(cell) for cell in column.to_pylist() if cell not in (None, "")), None):
            nameless.append(f"column {i + 1}, which begins with {first}")
    problems = []
    if nameless:
        problems.append(f"columns without a name: {some(nameless)}; name them in the header, or leave them out")
    labels = [names[i] for i in kept]
    repeated = sorted({name for name in labels if labels.count(name) > 1}) if len(set(labels)) < len(labels) else []
    if repeated:
        problems.append(f"columns with the same name: {some(repeated)}; rename or remove one")
    if not kept and not problems:
        problems.append("no column has a name; write the names into the first line")
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}")
    if row_numbers:
        warnings.warn(
            f"{path}: the first column has no name and counts the rows ({' and '.join(row_numbers)}); it is left out "
            "(df.to_csv(index=False) does not write it)",
            stacklevel=3,
        )
    return kept


def _numbers_rows(column: pa.ChunkedArray) -> str:
    """The range of a column of row numbers: whole, each once, below ten times the number of rows; else nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_integer(column.type) or pa.types.is_string(column.type)):
        return ""
    whole = pc.all(pc.match_substring_regex(column.cast(pa.string()), r"^\d{1,18}$")).as_py()
    if not whole or pc.count_distinct(column).as_py() < len(column):
        return ""
    limits = pc.min_max(column.cast(pa.int64())).as_py()
    return f"{limits['min']} to {limits['max']}" if limits["max"] < 10 * len(column) else ""


def _frame(columns: dict[str, pa.ChunkedArray]) -> pd.DataFrame:
    """The columns as pandas has them; text stays Arrow's."""
    import pandas as pd
    import pyarrow as pa

    return pd.DataFrame(
        {
            name: pd.arrays.ArrowExtensionArray(column) if pa.types.is_string(column.type) else column.to_pandas()
            for name, column in columns.items()
        }
    )


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table to a ``.csv``, ``.tsv`` or ``.parquet`` file, atomically.

    Raises:
        InputError: Another ending.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: a table must be a {', '.join(ENDINGS)} file")
    if path.suffix != ".parquet" and (odd := formulas(table)):
        warnings.warn(
            f"{path}: {len(odd)} cell(s) of text begin as a formula: {some(odd)}; they are written as they are, since "
            "names must stay the same. In a spreadsheet import the columns as text",
            stacklevel=2,
        )
    with atomic_write(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False, sep="\t" if path.suffix == ".tsv" else ",")


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def formulas(table: pd.DataFrame) -> list[str]:
    """Texts of a table, its header among them, that a spreadsheet would run as a formula; no numbers."""
    texts = [table[name].dropna().unique().tolist() for name in table.columns if table[name].dtype.kind not in "biufM"]
    found = {str(cell) for column in [list(table.columns), *texts] for cell in column if isinstance(cell, str)}
    return sorted(cell for cell in found if cell.startswith(FORMULA) and not _is_number(cell))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def require_columns(path: str | Path, table: pd.DataFrame, wanted: Iterable[str]) -> None:
    """Refuse a table that lacks columns: one error that names all of them and the nearest that are there."""
    present = [str(column) for column in table.columns]
    lacking = [name for name in wanted if name not in present]
    if lacking:
        hints = [f"{name} -> {' / '.join(hits)}" for name in lacking if (hits := near(name, present))]
        meant = f"did you mean {', '.join(hints)}? Rename" if hints else "rename"
        what = "the column, or add one" if len(lacking) == 1 else "the columns, or add them"
        raise InputError(
            f"{path} has no column {' and '.join(map(repr, lacking))}; it has {some(present, 12)}; {meant} {what}"
        )


def text_column(table: pd.DataFrame, column: str) -> pa.ChunkedArray:
    """A column as Arrow's text [n] without blanks around it, empty where a cell or the column is missing."""
    import pandas as pd
    import pyarrow as pa

    if column not in table:
        return pa.chunked_array([[""] * len(table)], pa.string())
    cells = table[column]
    if isinstance(cells.dtype, pd.ArrowDtype) and pa.types.is_string(cells.dtype.pyarrow_dtype):
        texts: pa.ChunkedArray = pa.chunked_array(cells.array.__arrow_array__())
        return _narrow(texts.fill_null("") if texts.null_count else texts, column)
    there = cells.notna()
    words = [str(cell).strip(BLANKS) if known else "" for cell, known in zip(cells, there, strict=True)]
    return _narrow(pa.chunked_array([words], pa.string()), column)


def _narrow(cells: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """The cells, none of whose names widens an array of all; cells of several names have ``|`` between them."""
    import pyarrow.compute as pc

    longest = pc.max(pc.utf8_length(cells)).as_py() or 0
    if len(cells) * longest * LETTER > ceiling(cells.nbytes):
        names = pc.list_flatten(pc.split_pattern(cells, "|"))
        refuse_wide(f"column {column!r}", len(names), pc.max(pc.utf8_length(names)).as_py(), cells.nbytes)
    return cells


def text_cells(table: pd.DataFrame, column: str) -> list[str]:
    """A column as text, empty where a cell or the column is missing."""
    cells: list[str] = text_column(table, column).to_pylist()
    return cells


def number_cells(
    column: pd.Series, name: str, path: str | Path, lenient: bool, mend: str = "leave such a cell empty"
) -> np.ndarray | None:
    """A column as float64, or None where it is text or truth values; ``mend`` is what to do about a stray word.

    Raises:
        InputError: Numbers with decimal commas, or a few stray words among numbers, unless ``lenient``; names rows.
    """
    if column.dtype.kind in "iuf":
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if column.dtype.kind == "b":
        return None
    found = _numbers(column)
    if not len(found.stray):
        return found.numbers
    if lenient:
        return None
    if all(_DECIMAL_COMMA.fullmatch(word) for word in found.words):
        raise InputError(
            f"{path}: column {name!r} has commas in its numbers: {some(found.named())}; write a decimal point and no "
            "other sign"
        )
    if len(found.stray) < found.n_given / 2:
        _refuse_stray(path, name, found, mend)
    return None


def truth_values(column: pd.Series) -> np.ndarray | None:
    """A column of truth values, or of ``TRUE`` and ``FALSE`` in any case, as 1 and 0, float64 [n]; else None."""
    if column.dtype.kind in "iuf":
        return None
    words, number = distinct_cells(column.to_frame("cells"), "cells")
    words = np.char.lower(words)
    values = np.select([words == "true", words == "false"], [1.0, 0.0], np.nan)
    known = ~np.isnan(values)
    return values[number] if np.isin(words[~known], MISSING).all() and known.any() else None


def required_numbers(table: pd.DataFrame, name: str, path: str | Path) -> np.ndarray:
    """A column that must hold numbers, as float64 [n]; NaN where a cell is missing.

    Raises:
        InputError: Any cell that is no number; names their rows.
    """
    mend = "give a number there"
    numbers = number_cells(table[name], name, path, lenient=False, mend=mend)
    if numbers is None:
        _refuse_stray(path, name, _numbers(table[name]), mend)
    assert numbers is not None
    return numbers


class _Numbers(NamedTuple):
    """A column as numbers [n], NaN where a cell holds none; how many are not missing; the rows with other words."""

    numbers: np.ndarray
    n_given: int
    stray: np.ndarray
    cells: pa.ChunkedArray
    words: list[str]

    def named(self) -> list[str]:
        """The rows with other words, and the words."""
        texts = self.cells.take(self.stray).to_pylist()
        return [f"row {i + 2}: {text}" for i, text in zip(self.stray.tolist(), texts, strict=True)]


def _refuse_stray(path: str | Path, name: str, found: _Numbers, mend: str) -> None:
    raise InputError(f"{path}: column {name!r} holds numbers but for {some(found.named())}; {mend}")


def _numbers(column: pd.Series) -> _Numbers:
    """The numbers of a column of text or truth values."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    table = column.to_frame("cells")
    cells, none = text_column(table, "cells"), np.empty(0, dtype=np.int64)
    try:
        return _Numbers(pc.cast(cells, pa.float64()).to_numpy(), len(cells), none, cells, [])
    except pa.ArrowInvalid:
        missing = pc.is_in(pc.utf8_lower(cells), pa.array(MISSING))
    given = ~missing.to_numpy(zero_copy_only=False)
    try:
        numbers = pc.cast(pc.if_else(missing, "nan", cells), pa.float64()).to_numpy()
        return _Numbers(numbers, int(given.sum()), none, cells, [])
    except pa.ArrowInvalid:
        words, number = distinct_cells(table, "cells")
    known = ~np.isin(np.char.lower(words), (*MISSING, "nan"))
    values = pd.to_numeric(pd.Series(words.tolist(), dtype=object).where(known, "nan"), errors="coerce")
    odd = np.isnan(values.to_numpy(np.float64)) & known
    return _Numbers(
        values.to_numpy(np.float64)[number],
        int(given.sum()),
        np.flatnonzero(odd[number]),
        cells,
        words[odd].tolist(),
    )


def distinct_cells(table: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The different cells of a column as text [K], and the number of each row's own [n]."""
    import pyarrow.compute as pc

    parts = pc.dictionary_encode(text_column(table, column)).unify_dictionaries().chunks
    if not parts:
        return np.empty(0, dtype=str), np.empty(0, dtype=np.int64)
    number = np.concatenate([part.indices.to_numpy() for part in parts])
    return numpy_texts(parts[-1].dictionary), number


def single_precision(
    path: str | Path, values: np.ndarray, columns: Sequence[str], row: np.ndarray | None = None
) -> np.ndarray:
    """Numbers [n, F] of a table as float32; infinities and NaN are left to the record that takes them.

    Args:
        path: The table.
        values: The numbers, float64.
        columns: Names of the columns [F].
        row: The row of the table that each row of ``values`` is from, the first is 0 [n]; none: they are the same.

    Raises:
        InputError: Numbers whose square single precision can't hold; names rows and columns.
    """
    large = np.isfinite(values) & (np.abs(values) > LARGEST)
    if large.any():
        at = np.arange(len(values)) if row is None else row
        rows = [f"row {at[i] + 2}: {values[i][large[i]][0]:g}" for i in np.flatnonzero(large.any(1))]
        named = some([name for name, any_large in zip(columns, large.any(0), strict=True) if any_large])
        raise InputError(
            f"{path}: column {named} has numbers beyond {LARGEST:g}, too large for single precision: {some(rows)}; "
            "rescale the column, or take its logarithm"
        )
    return values.astype(np.float32)


def refuse_spoiled_names(path: str | Path, column: str, names: Sequence[str]) -> None:
    """Refuse a column [n] in which a spreadsheet turned names of genes into dates, numbers or errors; name the rows."""
    if said := spoiled_names(column, names):
        raise InputError(f"{path}: {said}")


def spoiled_names(column: str, names: Sequence[str], row: np.ndarray | None = None) -> str:
    """Say what a spreadsheet made of names of genes, e.g. ``2-Sep`` of SEPT2; nothing where all are well.

    Args:
        column: Of the table.
        names: Cells or parts of cells [n].
        row: The row that each is from, the first is 0 [n]; none: they are the rows.
    """
    spoiled = {name for name in set(names) if _DATE.fullmatch(name) or _SHEET_ERROR.fullmatch(name)}
    if not spoiled:
        return ""
    at = [i for i, name in enumerate(names) if name in spoiled]
    words = list(dict.fromkeys(f"row {(i if row is None else row[i]) + 2}: {names[i]}" for i in at))
    return (
        f"column {column!r} holds what a spreadsheet made of gene names, in {len(words):,} row(s): {some(words)}; "
        "write the names (SEPTIN2, MARCHF1, ...) and format the column as text"
    )


def is_spoiled_name(name: str) -> bool:
    """Whether a name is a date, a number with an exponent or an error value, which no gene is called."""
    return bool(spoiled_names("", [name]))
