"""The cells of a text table, parsed by pyarrow: encoding, separator and header found out, uneven rows refused."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchcell.io.ceiling import gunzip
from torchcell.io.errors import InputError, some

if TYPE_CHECKING:
    import pyarrow as pa


GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
"""First bytes of a compressed file, and of an Excel file."""
BLANKS = "".join(chr(i) for i in range(0x3001) if chr(i).isspace()) + "\u200b\u2060\ufeff"
"""What surrounds a name without being part of it; the last three have no width."""
BLOCK = 1 << 24
"""Bytes that pyarrow parses at a time; a longer row goes the slow way."""


def parse_text(path: Path, expected: Sequence[str] = (), comment: str = "") -> tuple[list[str], pa.Table]:
    """Read a text table, every cell as text; neither names nor cells are judged here.

    Args:
        path: The file, which may be compressed by gzip.
        expected: Names that the header must hold, else the first row is no header and its first cells are so named.
        comment: Lines before the header that begin with it are left out.

    Returns:
        Names of the columns without blanks around them, and their cells.

    Raises:
        InputError: The file is empty, is no text, has no rows, or has rows with more or fewer cells than the header.
    """
    text = _utf8(path)
    header = _first_line(text, comment)
    if header is None:
        raise InputError(f"{path} is empty")
    start, end = _whole_header(text, *header)
    line = text[start:end].decode()
    if declared := re.fullmatch(r'"?sep=([,;\t])"?', line.strip(" ")):  # Excel's own first line
        start, end = _whole_header(text, *(_first_line(text, comment, end) or header))
        line = text[start:end].decode()
    separator = declared[1] if declared else _separator(line, path)
    cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    names = [re.sub(r"\s*[\r\n]+\s*", " ", cell.strip(BLANKS)) for cell in cells]
    if expected and not set(expected) <= set(names):
        names = [*expected, *(f"column {i + 1}" for i in range(len(expected), len(names)))]
        end = start
    body = text[end:].lstrip(b"\r\n") if end else text
    if not body.strip():
        raise InputError(f"{path} has no rows")
    first_row = text[: len(text) - len(body)].count(b"\n") + 1
    table = _fast(body, names, separator)
    return names, _slow(path, body.decode(), names, separator, first_row) if table is None else table


def _utf8(path: Path) -> bytes:
    """The content as UTF-8, whatever it was written in."""
    content = path.read_bytes()
    if content.startswith(GZIP):
        content = gunzip(path)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16").encode()
    content = content.removeprefix(codecs.BOM_UTF8)
    if content.startswith(ZIP) or b"\0" in content[:4096]:
        kind = "an Excel or zip file" if content.startswith(ZIP) else "no text"
        raise InputError(f"{path} is {kind}; save the table as CSV in UTF-8")
    try:
        if not content.isascii():
            content.decode()
    except UnicodeDecodeError as error:
        before, after = content[: error.start].rpartition(b"\n")[2], content[error.start :].partition(b"\n")[0]
        odd = (before[-20:] + after[:20]).decode("latin-1").strip()
        warnings.warn(f"{path} is not in UTF-8 and is read as Latin-1, e.g. {odd!r}", stacklevel=2)
        return content.decode("latin-1").encode()
    return content


def _first_line(text: bytes, comment: str, begin: int = 0) -> tuple[int, int] | None:
    """Where the first line behind ``begin`` that says something begins and ends."""
    for line in re.compile(rb"[^\r\n]+").finditer(text, begin):
        if line.group().strip() and not (comment and line.group().startswith(comment.encode())):
            return line.span()
    return None


def _whole_header(text: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the header ends: its quoted names may hold ends of lines, as spreadsheets write them."""
    last = end
    for _ in range(100):
        if text.count(b'"', start, last) % 2 == 0:
            return start, last
        closing = text.find(b'"', last)
        if closing < 0:
            break
        found = re.compile(rb"[\r\n]|$").search(text, closing)
        last = found.start() if found else len(text)
    return start, end


def _separator(header: str, path: Path) -> str:
    """Tab, comma or semicolon, whichever the header has most of; where it leaves a choice, what the ending says."""
    bare = re.sub(r'"[^"]*"', "", header)
    usual = "," if path.name.removesuffix(".gz").endswith(".csv") else "\t"
    if usual == "\t" and "\t" in bare:  # a tab is no part of a name
        return usual
    return max((usual, ",", "\t", ";"), key=bare.count)


def _fast(body: bytes, names: list[str], separator: str) -> pa.Table | None:
    """The cells by pyarrow; none where a row is uneven or the quotes are unusual."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    # A blank is no separator here: of a row of tabs each would be looked through to its end.
    blank_quote = re.compile(rb'\t +"' if separator == "\t" else re.escape(separator).encode() + rb'[ \t]+"')
    quotes = body.count(b'"')
    if quotes % 2 or (quotes and blank_quote.search(body)):
        return None
    uneven = []

    def note(row: object) -> str:
        uneven.append(row)
        return "skip"

    numbered = [str(i) for i in range(len(names))]
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(body),
            read_options=arrow_csv.ReadOptions(column_names=numbered, block_size=BLOCK),
            parse_options=arrow_csv.ParseOptions(
                delimiter=separator,
                newlines_in_values=quotes > 0,
                invalid_row_handler=note,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(numbered, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    return None if uneven else table


def _slow(path: Path, body: str, names: list[str], separator: str, first_row: int) -> pa.Table:
    """The cells row by row: surplus cells that are empty are left out, and uneven rows are named by their lines."""
    import pyarrow as pa

    reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows: list[list[str]] = []
    uneven: list[tuple[int, int]] = []
    try:
        for row in reader:
            if not row or (len(row) == 1 and not row[0].strip(BLANKS)):
                continue
            if any(cell.strip(BLANKS) for cell in row[len(names) :]) or len(row) < len(names):
                uneven.append((first_row + reader.line_num - 1, len(row)))
            rows.append(row[: len(names)])
    except csv.Error as error:
        line = first_row + reader.line_num - 1
        raise InputError(f"{path}: line {line} can't be read: {error}; look at its quotation marks") from error
    if uneven:
        raise InputError(_said(path, names, separator, uneven, len(rows)))
    return pa.table({str(i): pa.array(cells, pa.string()) for i, cells in enumerate(zip(*rows, strict=True))})


def _said(path: Path, names: list[str], separator: str, uneven: list[tuple[int, int]], n_rows: int) -> str:
    """Which rows don't fit the header, and what to do."""
    lines = some([f"line {line}: {cells}" for line, cells in uneven])
    what = "tab" if separator == "\t" else repr(separator)
    said = (
        f"{path}: {len(uneven):,} of {n_rows:,} rows have another number of cells than the header, which has "
        f"{len(names)} ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''}): {lines}; name every column in the "
        f"header, and put a cell that holds a {what} between quotation marks"
    )
    if len(uneven) == n_rows and {cells for _, cells in uneven} == {len(names) + 1}:
        said += "; if rows begin with their name or number, write the table without (row.names=FALSE, index=False)"
    return said
