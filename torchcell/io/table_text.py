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
MARKS = (GZIP, ZIP, codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""First bytes of a file that is no plain text in UTF-8."""
_END_OF_LINES, _SOMETHING = re.compile(rb"[\r\n]*"), re.compile(rb"\S")
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
    before, streamed = _state(path), _is_large_and_plain(path)
    text = _head(path) if streamed else _utf8(path)
    header = _first_line(text, comment)
    if streamed and header is None:  # a block of empty lines or of comments
        text, streamed = _utf8(path), False
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
    begin = _END_OF_LINES.match(text, end).end() if end else 0  # type: ignore[union-attr]
    if streamed and not _SOMETHING.search(text, begin):  # a row of a block and more
        text, streamed = _utf8(path), False
    if not _SOMETHING.search(text, begin):
        raise InputError(f"{path} has no rows")
    table = _fast(path if streamed else text, begin, names, separator)
    if table is None:
        text = _utf8(path) if streamed else text
        table = _slow(path, text[begin:].decode(), names, separator, text.count(b"\n", 0, begin) + 1)
    if streamed and _state(path) != before:
        raise InputError(f"{path} was changed while it was read; run again once it is whole")
    return names, table


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _is_large_and_plain(path: Path) -> bool:
    """Whether a file is of several blocks, in UTF-8 as it is, and without quotation marks: it is never held whole."""
    if path.stat().st_size <= BLOCK:
        return False
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            for number, block in enumerate(iter(lambda: file.read(BLOCK), b"")):
                if number == 0 and (block.startswith(MARKS) or b"\0" in block[:4096] or b"\n" not in block):
                    return False
                if b'"' in block:
                    return False
                if decoder.getstate()[0] or not block.isascii():
                    decoder.decode(block)
        except UnicodeDecodeError:
            return False
    return not decoder.getstate()[0]


def _head(path: Path) -> bytes:
    """The whole lines of the first block of a file."""
    with path.open("rb") as file:
        return file.read(BLOCK).rpartition(b"\n")[0]


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


def _fast(source: Path | bytes, begin: int, names: list[str], separator: str) -> pa.Table | None:
    """The cells behind position ``begin`` by pyarrow; none where a row is uneven or the quotes are unusual.

    Args:
        source: The content; or a file without quotes, which is read by blocks.
        begin: Where the rows begin.
        names: Of the columns.
        separator: Of the cells.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    quotes = source.count(b'"', begin) if isinstance(source, bytes) else 0
    if quotes and isinstance(source, bytes):
        # A blank is no separator here: of a row of tabs each would be looked through to its end.
        blank_quote = re.compile(rb'\t +"' if separator == "\t" else re.escape(separator).encode() + rb'[ \t]+"')
        if quotes % 2 or blank_quote.search(source, begin):
            return None
    uneven = []

    def note(row: object) -> str:
        uneven.append(row)
        return "skip"

    numbered = [str(i) for i in range(len(names))]
    stream = pa.BufferReader(source) if isinstance(source, bytes) else pa.OSFile(str(source))
    stream.seek(begin)
    try:
        table = arrow_csv.read_csv(
            stream,
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
