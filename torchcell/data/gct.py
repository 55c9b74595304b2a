"""GCT 1.3, the text format of L1000 plates: a matrix of genes by wells with annotations of both."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchcell.data.errors import InputError, some
from torchcell.data.places import located

if TYPE_CHECKING:
    import pandas as pd

NULLS = (
    "-666", "-666.0", "na", "n/a", "nan", "null", "",
    "#n/a", "#na", "#value!", "#div/0!", "#num!", "#ref!", "#name?", "#null!",
)  # fmt: skip
"""How the LINCS files and spreadsheets write a missing cell, in any case."""


@dataclass(frozen=True, eq=False)
class AnnotatedMatrix:
    """n wells (or signatures) over G genes, as a GCT or GCTX file holds them.

    Attributes:
        values: float32 [n, G]; NaN where the file marks a missing value.
        wells: What is told of each well, indexed by its id; a missing text is empty, a missing number NaN.
        genes: What is told of each gene, indexed by its id.
    """

    values: np.ndarray
    wells: pd.DataFrame
    genes: pd.DataFrame


def read_gct(path: str | Path) -> AnnotatedMatrix:
    """Read a ``.gct`` or ``.gct.gz`` file of version 1.3.

    Raises:
        InputError: No such file, another version, counts in the header that the file does not keep, a line with
            another number of cells, ids used twice, text where numbers belong. The message names the lines.
    """
    path = Path(path)
    lines = _lines(path)
    if not lines or lines[0].strip() != "#1.3":
        raise InputError(f"{path}: the first line is {lines[0][:20] if lines else ''!r}, expected '#1.3', a GCT of 1.3")
    n_genes, n_wells, n_about_gene, n_about_well = _counts(path, lines[1] if len(lines) > 1 else "")
    expected = 3 + n_about_well + n_genes
    if len(lines) != expected:
        raise InputError(
            f"{path}: the header promises {n_genes} genes and {n_about_well} annotations of wells, so {expected} "
            f"lines; the file has {len(lines)}; mend the counts in line 2, or fetch the file again"
        )
    width = 1 + n_about_gene + n_wells
    rows = [line.split("\t") for line in lines[2:]]
    odd = [f"line {i + 3}: {len(row)}" for i, row in enumerate(rows) if len(row) != width]
    if odd:
        raise InputError(
            f"{path}: the header promises {n_about_gene} annotations of genes and {n_wells} wells, so {width} cells a "
            f"line; other numbers of cells stand in {some(odd)}"
        )
    head, about_wells, body = rows[0], rows[1 : 1 + n_about_well], rows[1 + n_about_well :]
    first = 1 + n_about_gene
    wells = _table(path, "wells", head[first:], {row[0]: row[first:] for row in about_wells})
    columns = {name: [row[i] for row in body] for i, name in enumerate(head[:first]) if i}
    genes = _table(path, "genes", [row[0] for row in body], columns)
    return AnnotatedMatrix(_numbers(path, body, head, first).T.copy(), wells, genes)


def cleared(texts: list[str]) -> list[str]:
    """Texts without what only marks a missing one."""
    return ["" if text.strip().lower() in NULLS else text.strip() for text in texts]


def refuse_repeated_ids(path: Path, what: str, ids: list[str]) -> None:
    """Raise if an id of a well or a gene stands twice."""
    unique, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"{path}: ids of {what} used twice: {some(unique[counts > 1])}; make them unique")


def _lines(path: Path) -> list[str]:
    path = located(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise InputError(f"{path} can't be unpacked: {error}; fetch it again") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:  # older files write µ in Latin-1
        text = raw.decode("latin-1")
    return text.rstrip("\r\n").replace("\r\n", "\n").split("\n")


def _counts(path: Path, line: str) -> tuple[int, int, int, int]:
    cells = line.split()
    if len(cells) != 4 or not all(cell.isdigit() for cell in cells):
        raise InputError(
            f"{path}: line 2 must hold four counts (genes, wells, annotations of genes, of wells), not {line[:60]!r}"
        )
    n_genes, n_wells, n_about_gene, n_about_well = map(int, cells)
    if not n_genes or not n_wells:
        raise InputError(f"{path}: line 2 promises {n_genes} genes and {n_wells} wells; there is nothing to read")
    return n_genes, n_wells, n_about_gene, n_about_well


def _table(path: Path, what: str, ids: list[str], columns: dict[str, list[str]]) -> pd.DataFrame:
    import pandas as pd

    refuse_repeated_ids(path, what, ids)
    return pd.DataFrame({name: cleared(cells) for name, cells in columns.items()}, index=pd.Index(ids, dtype=object))


def _numbers(path: Path, body: list[list[str]], head: list[str], first: int) -> np.ndarray:
    """The matrix as the file has it, float32 [G, n]; NaN for a missing cell, infinite for what float32 can't hold."""
    values, odd = np.empty((len(body), len(head) - first), dtype=np.float32), []
    with np.errstate(over="ignore"):
        for i, row in enumerate(body):
            try:
                values[i] = row[first:]
            except ValueError:
                cells = [cell or "nan" for cell in cleared(row[first:])]
                numbers = [_number(cell) for cell in cells]
                odd += [
                    f"gene {row[0]}, well {well}: {cell}"
                    for well, cell, number in zip(head[first:], cells, numbers, strict=True)
                    if number is None
                ]
                values[i] = [np.nan if number is None else number for number in numbers]
    if odd:
        raise InputError(
            f"{path}: {len(odd)} cell(s) that are no number: {some(odd)}; mend them, or leave them empty, NA or -666 "
            "where a value is missing"
        )
    values[values == -666] = np.nan
    return values


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
