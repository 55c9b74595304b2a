"""Several files of cells as one data set: their rows one after the other, over the genes that all of them have."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from torchcell.cells.backed import BackedMatrix
from torchcell.cells.record import CellExpression
from torchcell.io.categorical import Categorical
from torchcell.io.errors import InputError, some
from torchcell.io.fingerprint import fingerprint
from torchcell.io.in_memory import InMemory
from torchcell.io.matrices import as_float32

FILE = "file"
"""The covariate that says which file a cell is from, where ``obs`` has none of that name."""
FEW_IN_COMMON = 0.5
"""Share of the genes of the smallest file below which names, not panels, are thought to differ."""


@dataclass(frozen=True, eq=False)
class JoinedMatrix(BackedMatrix):
    """Rows of several matrices on disk, one after the other; all else is as of one.

    Attributes:
        parts: The matrices, all over the same genes in the same order.
    """

    parts: tuple[BackedMatrix, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[BackedMatrix]) -> JoinedMatrix:
        """All rows of some matrices."""
        n = sum(len(part) for part in parts)
        return cls(parts[0].path, "joined", np.arange(n), parts[0].shape[1], parts=tuple(parts))

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are read."""
        return tuple(part.path for part in self.parts)

    @property
    def seen(self) -> list[Any]:
        """Which values of the files are shown, for what is kept about them."""
        return [*super().seen, *(fingerprint(part.seen) for part in self.parts)]

    @property
    def n_values(self) -> int | None:
        """No fewer than the stored values of our rows; none where a matrix is dense."""
        found = [self.parts[i].on_rows(rows).n_values for i, _, rows in self._by_part(self.rows)]
        return None if None in found else sum(each for each in found if each is not None)

    def stored(self, at: np.ndarray) -> Any:
        """See ``BackedMatrix``."""
        read, place = [], []
        for i, own, rows in self._by_part(self.rows[at]):
            read.append(self.parts[i][rows])
            place.append(own)
        if len(read) == 1:
            return read[0]
        if not read:
            return self.parts[0][np.empty(0, dtype=np.int64)]
        back = np.argsort(np.concatenate(place))
        if any(sparse.issparse(each) for each in read):
            return as_float32(sparse.vstack([sparse.csr_matrix(each) for each in read], format="csr")[back])
        return np.concatenate(read)[back]

    def _by_part(self, rows: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Number of each matrix that has some of the rows, which of them those are, and their rows there."""
        ends = np.cumsum([len(part) for part in self.parts])
        of = np.searchsorted(ends, rows, side="right")
        first = ends - [len(part) for part in self.parts]
        return [(i, np.flatnonzero(of == i), rows[of == i] - first[i]) for i in np.unique(of).tolist()]


def files_of(path: Any) -> list[Any]:
    """The files that ``path`` names: one, a list, or those that a pattern with ``*`` or ``?`` fits, sorted.

    Raises:
        InputError: A pattern that no file fits; a file that stands twice.
    """
    if isinstance(path, InMemory):
        return [path]
    found: list[Any] = []
    for one in [path] if isinstance(path, str | Path) else list(path):
        text = str(one)
        if any(sign in text for sign in "*?") and not Path(text).exists():
            matches = sorted(glob.glob(text))
            if not matches:
                raise InputError(f"no file fits {text}")
            found += matches
        else:
            found.append(one)
    twice = sorted({str(one) for one in found if found.count(one) > 1})
    if twice or not found:
        raise InputError(f"files given twice: {some(twice)}" if twice else "data.record.path is an empty list")
    return found


def joined_cells(
    files: Sequence[Any],
    columns: Mapping[str, str] | Sequence[Mapping[str, str]] | None,
    covariates: Sequence[str],
    name: str,
    read: Callable[[Any, Any, Sequence[str]], CellExpression],
) -> CellExpression:
    """The cells of several files, each named ``FILE:CELL``, over the genes that all of them have.

    Args:
        files: Of one scale.
        columns: One map of names for all, or one a file.
        covariates: To keep; ``file`` is the name of the file, unless it is mapped to a column.
        name: Of the record.
        read: Reads one file, with its columns and covariates; expression stays on disk.

    Raises:
        InputError: Another number of maps than files; files of one name; hardly any gene in common.
    """
    maps = [columns] * len(files) if columns is None or isinstance(columns, Mapping) else list(columns)
    if len(maps) != len(files):
        raise InputError(f"{name}: {len(maps)} maps of columns for {len(files)} files; give one for all, or one a file")
    stems = [Path(file).stem for file in files]
    if len(set(stems)) < len(stems):
        raise InputError(f"{name}: files of one name: {some(sorted(one for one in stems if stems.count(one) > 1))}")
    by_file = FILE in covariates and not any(FILE in (each or {}) for each in maps)
    kept = [one for one in covariates if not (by_file and one == FILE)]
    cells = [read(file, each, kept) for file, each in zip(files, maps, strict=True)]
    genes, lost = _common(name, stems, cells)
    parts = [each.on_genes(genes).X for each in cells]
    own = {one: _concatenated([each.covariates[one] for each in cells]) for one in kept}
    if by_file:
        own[FILE] = Categorical.coded(stems, np.repeat(np.arange(len(cells)), [len(each) for each in cells]))
    dropped = {"genes that not all files have": lost} if lost else {}
    for each in cells:
        dropped |= {what: n + dropped.get(what, 0) for what, n in each.dropped.items()}
    ids = [np.char.add(f"{stem}:", each.sample_id) for stem, each in zip(stems, cells, strict=True)]
    return CellExpression(
        name=name,
        X=JoinedMatrix.of(parts),
        perturbation=_concatenated([each.perturbation for each in cells]),
        is_control=np.concatenate([each.is_control for each in cells]),
        genes=genes,
        sample_id=np.concatenate(ids),
        scale=cells[0].scale,
        covariates=own,
        dropped=dropped,
        control_words=tuple(sorted({word for each in cells for word in each.control_words})),
    )


def _common(name: str, stems: Sequence[str], cells: Sequence[CellExpression]) -> tuple[np.ndarray, int]:
    """The genes that all files have, in the order of the first, and how many genes are left out."""
    first = cells[0].genes
    shared = np.ones(len(first), dtype=bool)
    for each in cells[1:]:
        shared &= np.isin(first, each.genes)
    fewest = min(len(each.genes) for each in cells)
    if shared.sum() < FEW_IN_COMMON * fewest:
        named = [f"{stem} has {some(each.genes, 2)}" for stem, each in zip(stems, cells, strict=True)]
        raise InputError(
            f"{name}: the files have {int(shared.sum()):,} of {fewest:,} genes in common: {'; '.join(named[:4])}; are "
            "genes named alike in all of them (data.record.matrix.gene_column)?"
        )
    every = np.unique(np.concatenate([each.genes for each in cells]))
    return first[shared], len(every) - int(shared.sum())


def _concatenated(parts: Sequence[Categorical]) -> Categorical:
    first = np.cumsum([0, *(len(part.names) for part in parts)])
    names = [text for part in parts for text in part.names.tolist()]
    return Categorical.coded(names, np.concatenate([part.codes + at for part, at in zip(parts, first, strict=False)]))
