"""``data prepare``: cells of an h5ad file or zarr folder as a zarr folder that is read fast, grouped by condition.

AnnData's own format (zarr v3, CSR, in shards), so that others read it too. Chunks are not compressed: a row is read
where it lies. Counts are stored in one or two bytes and genes in two, which makes the folder smaller than the file.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from torchcell.cells.backed import BackedMatrix, keys_of
from torchcell.cells.table import annotation
from torchcell.io.cache import write_json
from torchcell.io.errors import InputError, table_column
from torchcell.io.file_facts import state_of
from torchcell.io.fingerprint import fingerprint
from torchcell.io.hdf5 import writable_zarr
from torchcell.io.labels import label_texts, ordered
from torchcell.io.locks import alone
from torchcell.io.paths import located
from torchcell.io.progress import track

CHUNK, SHARD = 2**16, 2**26
"""Values of a chunk and of a shard, which is a file."""
BLOCK = 4096
"""Cells that are looked at at a time."""
WINDOW = 2**29
"""Bytes of values that are put in order at a time."""
PROGRESS = "prepare.json"
"""In an unfinished folder: what it is made of, and how many values are written."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """What was written.

    Attributes:
        path: The folder.
        n_cells: Cells.
        n_genes: Genes.
        n_bytes: Size of the expression.
    """

    path: Path
    n_cells: int
    n_genes: int
    n_bytes: int


def prepare(path: str | Path, out: str | Path, by: Sequence[str], layer: str | None = None) -> Prepared:
    """Write the cells of a file, those of a condition together and in the order of the file.

    The file is only read. Until all is written the folder has another name, ``OUT.part``; the same command goes on
    where it was stopped.

    Args:
        path: An h5ad file or zarr folder.
        out: The folder to write, ``.zarr``.
        by: Columns of ``obs`` by which cells are grouped: the perturbation, then what a cell and its controls share.
        layer: Take the values from this layer instead of ``X``; ``raw``: those and the genes of ``adata.raw``.

    Raises:
        InputError: ``out`` is there, or too little room; a file that can't be read or that changes; a full disk.
    """
    path, out = located(path), Path(out)
    if out.suffix != ".zarr":
        raise InputError(f"{out}: the folder to write must end in .zarr")
    part = out.with_name(f"{out.name}.part")
    if out.exists() or part.is_symlink():
        there = out if out.exists() else part
        raise InputError(f"{there} exists; remove it first, or choose another name")
    key, about_genes = keys_of(path, layer)
    X, obs, var = BackedMatrix.open(path, key), annotation(path, "obs"), annotation(path, about_genes)
    codes = [ordered(label_texts(table_column(str(path), obs, name))).codes for name in by]
    order = np.lexsort(codes[::-1]) if codes else np.arange(len(obs))
    before = state_of(path)[0]
    plan = fingerprint([before, key, order, CHUNK, SHARD])
    part.mkdir(parents=True, exist_ok=True)
    with _one_writer(part), _full_disk(part):
        written = _Writer(part, X, order, plan)
        written.write()
        if state_of(path)[0] != before:
            shutil.rmtree(part)
            raise InputError(f"{path} changed while it was read: wait until it is whole, then start again")
        written.finish({"obs": obs.iloc[order], "var": var, "uns": {"prepared": {"source": path.name, "by": list(by)}}})
        part.replace(out)
    return Prepared(out, len(obs), X.shape[1], written.n_bytes)


@contextmanager
def _one_writer(part: Path) -> Iterator[None]:
    try:
        with alone(part, 0.0):
            yield
    except TimeoutError as error:
        raise InputError(f"{part}: another process is writing it") from error


@contextmanager
def _full_disk(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        raise InputError(
            f"{part} can't be written ({error}); make room and give the same command, which goes on where this one "
            "stopped, or remove the folder"
        ) from error


class _Writer:
    """The expression of an unfinished folder.

    Args:
        part: The folder.
        X: The matrix [n, G].
        order: Rows of it in the order in which they are written [n].
        plan: What a folder is known by that the same command began.
    """

    def __init__(self, part: Path, X: BackedMatrix, order: np.ndarray, plan: str) -> None:
        self.part, self.X, self.order, self.plan = part, X, order, plan
        count, kind = _survey(X)
        self.ptr = np.concatenate([[0], np.cumsum(count[order])]).astype(np.int64)
        self.kinds = {"data": kind, "indices": "uint16" if X.shape[1] <= 2**16 else "int32"}
        self.n_bytes = int(self.ptr[-1]) * sum(np.dtype(kind).itemsize for kind in self.kinds.values())

    def write(self) -> None:
        """Write all values that are not there yet, shard by shard."""
        done, total = self._begun(), int(self.ptr[-1])
        shard = min(SHARD, -(-max(total, 1) // CHUNK) * CHUNK)
        arrays: dict[str, Any] = {name: self.root[f"X/{name}"] for name in self.kinds}
        pending = {name: np.empty(0, dtype=kind) for name, kind in self.kinds.items()}
        first = max(int(np.searchsorted(self.ptr, done, side="right")) - 1, 0)
        skip = done - int(self.ptr[first])
        for rows in track(self._windows(first), f"writing {self.part.with_suffix('').name}"):
            block = _canonical(self.X.stored(self.order[rows]))
            for name in pending:
                pending[name] = np.concatenate([pending[name], getattr(block, name)[skip:].astype(self.kinds[name])])
            skip, last = 0, rows.stop == len(self.order)
            while len(pending["data"]) >= shard or (last and len(pending["data"])):
                for name, array in arrays.items():
                    values, pending[name] = pending[name][:shard], pending[name][shard:]
                    array[done : done + len(values)] = values
                done = min(done + shard, total)
                write_json(self.part / PROGRESS, {"plan": self.plan, "values": done})

    def _windows(self, first: int) -> list[slice]:
        """Rows that are put in order together."""
        size, found = WINDOW // 8, []
        while first < len(self.order):
            stop = int(np.searchsorted(self.ptr, self.ptr[first] + size, side="right")) - 1
            stop = min(max(stop, first + 1), len(self.order))
            found.append(slice(first, stop))
            first = stop
        return found

    def _begun(self) -> int:
        """Values that the same command has written before; makes the folder anew where it was another one."""
        progress = self.part / PROGRESS
        if progress.is_file() and (about := json.loads(progress.read_text())).get("plan") == self.plan:
            self.root = writable_zarr(self.part, begun=True)
            return int(about["values"])
        for one in self.part.iterdir():
            shutil.rmtree(one) if one.is_dir() else one.unlink()
        free, needed = shutil.disk_usage(self.part).free, self.n_bytes + 8 * len(self.ptr)
        if free < needed:
            raise InputError(
                f"{self.part}: {needed / 1e9:,.1f} GB are needed, and {free / 1e9:,.1f} GB are free; make room, or "
                "write elsewhere"
            )
        self.root = writable_zarr(self.part, begun=False)
        total = int(self.ptr[-1])
        pieces: Any = {"chunks": (CHUNK,), "shards": (min(SHARD, -(-max(total, 1) // CHUNK) * CHUNK),)}
        group = self.root.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [*self.X.shape]})
        whole: Any = {"compressors": None, "config": {"write_empty_chunks": True}}
        for name, kind in self.kinds.items():
            group.create_array(name, shape=(total,), dtype=kind, **pieces, **whole)
        group.create_array("indptr", data=self.ptr, chunks=(2**20,))
        write_json(progress, {"plan": self.plan, "values": 0})
        return 0

    def finish(self, tables: dict[str, Any]) -> None:
        """Write what stands beside the expression; after this the folder is whole."""
        from anndata.io import write_elem

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anndata, on shards of tables
            for name, table in tables.items():
                write_elem(self.root, name, table)
        self.root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        (self.part / PROGRESS).unlink()


def _canonical(stored: Any) -> sparse.csr_matrix:
    """Rows as CSR without stored zeros."""
    rows = sparse.csr_matrix(stored)
    rows.eliminate_zeros()
    return rows


def _survey(X: BackedMatrix) -> tuple[np.ndarray, str]:
    """Values of each row other than zero [n], and the smallest type that holds all values."""
    count, whole, highest, lowest = np.zeros(len(X), dtype=np.int64), True, 0.0, 0.0
    for start in track(range(0, len(X), BLOCK), f"looking at {X.path.name}"):
        rows = _canonical(X.stored(np.arange(start, min(start + BLOCK, len(X)))))
        count[start : start + rows.shape[0]] = np.diff(rows.indptr)
        if rows.nnz:
            whole = whole and bool((rows.data == np.floor(rows.data)).all())
            highest, lowest = max(highest, float(rows.data.max())), min(lowest, float(rows.data.min()))
    if not whole or lowest < 0 or not highest < 2**16:
        return count, "float32"
    return count, "uint8" if highest < 2**8 else "uint16"
