"""The one pass over the cells of a file: values are checked, summed over sets, known by a hash, and held if wished."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from torchcell.cells.backed import BackedMatrix, lognormalized
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.record import CellExpression
from torchcell.cells.sums import SetSums
from torchcell.cells.values import CHUNK, ValueChecks
from torchcell.io.cache import arrays_about
from torchcell.io.fingerprint import MatrixDigest, fingerprint
from torchcell.io.matrices import summed
from torchcell.io.progress import track

FORMAT = 1
"""Of what is kept about a file; part of the key."""


def scanned(record: Pseudobulk, library: float | int, in_memory: bool) -> Pseudobulk:
    """The conditions over log-normalized cells, their values checked and summed.

    The file is read once, in blocks, and what was found is kept until it changes: the next run, and other processes,
    read no more than what they hold in memory.

    Args:
        record: Conditions of cells as they stand in the file, counts or log-normalized; names are valid.
        library: Counts that counts are scaled to.
        in_memory: Whether to hold the log-normalized values, which are about as large as the file. Counts never are.

    Raises:
        InputError: Values that are not what ``scale`` says; a file that changed while it was read.
    """
    cells = record.cells
    held = Held(cells.X) if in_memory else None
    raw = cells.X
    if isinstance(raw, BackedMatrix):
        known = record.own_sums
        sets = [known.sums.set_of, known.sums.n_sets, cells.scale, library, raw.seen]
        found = arrays_about(raw.files, f"cells {FORMAT} {fingerprint(sets)}", lambda: scan(record, library, held))
        raw = replace(raw, known=(str(found["values"]), str(found["totals"])))
    else:
        found = scan(record, library, held)
    if held is not None and not held.full:  # the sums were known
        for _, shown in _read(cells, library):
            held.add(shown)
    X = held.matrix() if held is not None else _shown_later(cells, raw, library)
    as_counts: dict[str, Any] = {"counts": raw, "library": library} if cells.scale == "counts" else {}
    if as_counts and not isinstance(raw, BackedMatrix):
        as_counts["totals"] = np.asarray(raw.sum(1, dtype=np.float64)).ravel()
    cells = replace(cells, X=X, scale="lognorm", checked=(X, "lognorm"), **as_counts)
    sums = record.own_sums.sums.on(X)
    sums.set(SetSums(found["count"], found["total"], found["squares"]))
    return replace(record, cells=cells, known=replace(record.own_sums, sums=sums))


def scan(record: Pseudobulk, library: float | int, held: Held | None) -> dict[str, Any]:
    """Read all cells: sums over sets as in ``SetSums``, and what the stored values and totals of cells are known by."""
    cells, sets = record.cells, record.own_sums.sums
    checks = ValueChecks(cells.name, cells.scale, cells.sample_id, cells.genes)
    sums, digest, totals, start = SetSums.zeros(sets.n_sets, len(cells.genes)), MatrixDigest(), np.zeros(len(cells)), 0
    for stored, shown in _read(cells, library, checks):
        stop = start + stored.shape[0]
        digest.add(stored)
        totals[start:stop] = np.asarray(stored.sum(1, dtype=np.float64)).ravel()
        sums.add(sets.set_of[start:stop], shown)
        if held is not None:
            held.add(shown)
        start = stop
    checks.finish()
    known = {"values": np.array(digest.fingerprint(cells.X.shape)), "totals": np.array(fingerprint(totals))}
    return {"count": sums.count, "total": sums.total, "squares": sums.squares, **known}


def _read(cells: CellExpression, library: float | int, checks: ValueChecks | None = None) -> Iterator[tuple[Any, Any]]:
    """Values as they are stored and log-normalized, some thousand cells at a time."""
    for start in track(range(0, len(cells), CHUNK), f"reading the cells of {cells.name}"):
        stored = summed(cells.X[start : start + CHUNK])
        if checks is not None:
            checks.add(start, stored)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # what is odd is refused once all is read
            yield stored, lognormalized(stored, library) if cells.scale == "counts" else stored


def _shown_later(cells: CellExpression, raw: Any, library: float | int) -> Any:
    """A matrix on disk that is log-normalized whenever cells of it are read."""
    return replace(raw, library=library, known=None) if cells.scale == "counts" else raw


class Held:
    """Expression as it comes, in memory once: float32, CSR where it comes so.

    Args:
        X: The matrix that is read [n, G].
    """

    def __init__(self, X: Any) -> None:
        self.shape, self.full = X.shape, False
        n_values = X.n_values if isinstance(X, BackedMatrix) else getattr(X, "nnz", None)
        self._dense, self._rows = None if n_values is not None else np.empty(self.shape, dtype=np.float32), 0
        if n_values is None:
            return
        kind = np.int32 if max(n_values, *self.shape) < 2**31 else np.int64
        self._values, self._genes = np.empty(n_values, dtype=np.float32), np.empty(n_values, dtype=kind)
        self._ptr = np.zeros(self.shape[0] + 1, dtype=kind)

    def add(self, chunk: Any) -> None:
        """The next rows."""
        stop = self._rows + chunk.shape[0]
        if self._dense is not None:
            self._dense[self._rows : stop] = chunk
        else:
            first = int(self._ptr[self._rows])
            self._ptr[self._rows + 1 : stop + 1] = first + chunk.indptr[1:]
            self._values[first : first + chunk.nnz], self._genes[first : first + chunk.nnz] = chunk.data, chunk.indices
        self._rows, self.full = stop, stop == self.shape[0]

    def matrix(self) -> Any:
        """All rows."""
        if self._dense is not None:
            return self._dense
        last = int(self._ptr[-1])
        return sparse.csr_matrix((self._values[:last], self._genes[:last], self._ptr), shape=self.shape)
