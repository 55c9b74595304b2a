"""Reads GCT and GCTX files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from torchcell.io.ceiling import gunzip
from torchcell.io.errors import InputError, some
from torchcell.io.hdf5 import open_hdf5
from torchcell.io.paths import located

if TYPE_CHECKING:
    import h5py
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
    raw = gunzip(path) if path.suffix == ".gz" else path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:  # older files write µ in Latin-1
        text = raw.decode("latin-1")
    return text.rstrip("\r\n").replace("\r\n", "\n").split("\n")


def _counts(path: Path, line: str) -> tuple[int, int, int, int]:
    cells = line.split()
    if len(cells) != 4 or not all(re.fullmatch(r"[0-9]{1,9}", cell) for cell in cells):
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


MATRIX, ABOUT_WELLS, ABOUT_GENES = "0/DATA/0/matrix", "0/META/COL", "0/META/ROW"
CHUNK = 4096
"""Samples a chunk, where nobody says otherwise; 16 MB over the 978 landmark genes."""
NULL = -666.0


class Gctx:
    """An open GCTX file; use it in a ``with`` statement.

    Args:
        path: A ``.gctx`` file; its matrix is stored samples by genes.

    Raises:
        InputError: No such file, no HDF5, or without the groups of a GCTX file; ids used twice; a matrix of another
            size than the ids.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.file = located(path), open_hdf5(path)
        try:
            self.matrix = self._checked()
        except InputError:
            self.file.close()
            raise

    def __enter__(self) -> Gctx:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def wells(self) -> pd.DataFrame:
        """What is told of each sample, indexed by its id; a missing text is empty, a missing number NaN."""
        return self._annotations(ABOUT_WELLS)

    def genes(self) -> pd.DataFrame:
        """What is told of each gene, indexed by its id."""
        return self._annotations(ABOUT_GENES)

    def read(self, samples: np.ndarray | slice | None = None, chunk: int = CHUNK) -> np.ndarray:
        """Expression of some samples over all genes, float32 [b, G]; NaN where the file marks a missing value.

        At most ``chunk`` samples are read at a time, in ascending order straight into the answer.

        Args:
            samples: Positions in any order, or a slice; all by default.
            chunk: Most samples that are asked of the file at once.
        """
        at = np.arange(len(self))[samples if samples is not None else slice(None)]
        values = np.empty((len(at), self.matrix.shape[1]), dtype=np.float32)
        order = np.argsort(at, kind="stable")
        in_order = bool((np.diff(at) > 0).all())
        for begin in range(0, len(at), chunk):
            where = slice(begin, min(begin + chunk, len(at)))
            rows = at[order[where]]  # ascending, as h5py wants them
            if in_order:
                span = slice(rows[0], rows[-1] + 1)
                wanted = span if span.stop - span.start == len(rows) else rows
                self.matrix.read_direct(values, np.s_[wanted], np.s_[where])
                _mark_missing(values[where])
            else:
                once, back = np.unique(rows, return_inverse=True)
                block = self.matrix[once].astype(np.float32, copy=False)
                _mark_missing(block)
                values[order[where]] = block[back]
        return values

    def chunks(self, chunk: int = CHUNK) -> Iterator[tuple[slice, np.ndarray]]:
        """All samples, a chunk at a time: where it stands, and its expression [b, G]."""
        for begin in range(0, len(self), chunk):
            where = slice(begin, min(begin + chunk, len(self)))
            yield where, self.read(where, chunk)

    def annotated(self, samples: np.ndarray | slice | None = None) -> AnnotatedMatrix:
        """Some samples, or all, with their annotations, as ``read_gct`` gives them."""
        where = samples if samples is not None else slice(None)
        return AnnotatedMatrix(self.read(where), self.wells().iloc[where], self.genes())

    def _checked(self) -> h5py.Dataset:
        """The stored matrix [n, G], opened once: that takes as long as reading a thousand wells."""
        for name in (MATRIX, f"{ABOUT_WELLS}/id", f"{ABOUT_GENES}/id"):
            if name not in self.file:
                raise InputError(f"{self.path} is no GCTX file: it has no {name}")
        n_wells, n_genes = (len(self.file[f"{group}/id"]) for group in (ABOUT_WELLS, ABOUT_GENES))
        matrix = self.file[MATRIX]
        if matrix.shape != (n_wells, n_genes):
            raise InputError(
                f"{self.path}: the matrix is {matrix.shape}, but there are ids of {n_wells} samples and "
                f"{n_genes} genes; fetch the file again"
            )
        return matrix

    def _annotations(self, group: str) -> pd.DataFrame:
        import pandas as pd

        columns = {name: _cells(data[:]) for name, data in self.file[group].items() if name != "id"}
        ids = _cells(self.file[f"{group}/id"][:], nulls=False).tolist()
        refuse_repeated_ids(self.path, "samples" if group == ABOUT_WELLS else "genes", ids)
        return pd.DataFrame(columns, index=pd.Index(ids, dtype=object))


def _cells(values: np.ndarray, nulls: bool = True) -> np.ndarray:
    """One column: texts (stored as bytes, µ in either encoding) or numbers, missing ones marked as ours."""
    if values.dtype.kind in "iuf":
        if not nulls:
            return values.astype(str)
        return np.where(values == NULL, np.nan, values) if (values == NULL).any() else values
    texts = [_decoded(value) for value in values.tolist()]
    return np.array(cleared(texts) if nulls else texts, dtype=object)


def _decoded(value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _mark_missing(block: np.ndarray) -> None:
    """NaN for the file's -666, in place; the least value tells in one pass whether there is any."""
    if block.size and not block.min() > NULL:
        np.copyto(block, np.nan, where=block == NULL)
