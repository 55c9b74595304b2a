"""``GeneFeatures``: named numbers of each gene that need no label, so that a gene nobody measured has them too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from torchcell.io.errors import InputError, near, some
from torchcell.io.fingerprint import fingerprint
from torchcell.io.matrices import LARGEST
from torchcell.io.tables import (
    number_cells,
    read_table,
    refuse_spoiled_names,
    require_columns,
    single_precision,
    text_cells,
)


@dataclass(frozen=True, eq=False)
class GeneFeatures:
    """One row of numbers a gene.

    Attributes:
        genes: Gene names [n], each once.
        columns: Names of the features [F], each once, e.g. ``physical 1``.
        values: float32 [n, F]; no value is missing.
        computed: Columns that were computed of a graph, whose last digits are the machine's.
    """

    genes: np.ndarray
    columns: tuple[str, ...]
    values: np.ndarray
    computed: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.genes)

    def validate(self) -> GeneFeatures:
        """Return self, or raise one ``InputError`` that names genes and columns at fault."""
        if self.values.shape != (len(self.genes), len(self.columns)):
            raise InputError(
                f"gene features: values {self.values.shape} for {len(self.genes)} genes, {len(self.columns)} columns"
            )
        for what, names in (("genes", self.genes), ("columns", np.array(self.columns, dtype=str))):
            unique, counts = np.unique(names, return_counts=True)
            if (counts > 1).any():
                raise InputError(f"gene features name {what} twice: {some(unique[counts > 1])}; keep each once")
        bad = ~(np.abs(self.values) <= LARGEST)
        if bad.any():
            columns = [name for name, wrong in zip(self.columns, bad.any(0), strict=True) if wrong]
            raise InputError(
                f"{int(bad.any(1).sum())} gene(s) without a finite number (up to {LARGEST:g}) for every feature: "
                f"{some(self.genes[bad.any(1)])}, in the columns {some(columns)}; fill these in, or leave the genes out"
            )
        return self

    def fingerprint(self) -> str:
        """A hash over genes, columns and all values but computed ones, which the graph's own fingerprint stands for."""
        given = [name not in self.computed for name in self.columns]
        return fingerprint([self.genes, self.columns, sorted(self.computed), self.values[:, given]])

    def to_plain(self) -> dict[str, Any]:
        """Strings and tensors only, for a checkpoint; which columns were computed is not kept."""
        import torch

        return {"genes": self.genes.tolist(), "columns": list(self.columns), "values": torch.from_numpy(self.values)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> GeneFeatures:
        """The inverse of ``to_plain``."""
        return cls(np.array(plain["genes"], dtype=str), tuple(plain["columns"]), plain["values"].numpy()).validate()

    def aligned(self, genes: Sequence[str]) -> np.ndarray:
        """Values in the order of ``genes``, float32 [len(genes), F].

        Raises:
            InputError: A gene without features, named with its nearest matches.
        """
        position = {name: i for i, name in enumerate(self.genes.tolist())}
        missing = [name for name in genes if name not in position]
        if missing:
            hints = {name: near(name, list(position)) for name in missing[:3]}
            said = ", ".join(f"{name} -> {' / '.join(hint)}" for name, hint in hints.items() if hint)
            raise InputError(
                f"{len(missing)} of {len(genes):,} genes have no features: {some(missing)}"
                f"{f'; did you mean {said}?' if said else ''} Add a row for each, or correct the names"
            )
        return self.values[[position[name] for name in genes]]

    def in_columns(self, columns: Sequence[str]) -> GeneFeatures:
        """The same features with their columns in another order.

        Raises:
            InputError: A column that is missing, or one too many.
        """
        missing = [name for name in columns if name not in self.columns]
        extra = [name for name in self.columns if name not in columns]
        if missing or extra:
            hints = f" Was {extra[0]!r} to be {near(extra[0], missing)}?" if extra and near(extra[0], missing) else ""
            raise InputError(
                f"the features have the wrong width: {len(self.columns)} columns where {len(columns)} are read; "
                f"missing {some(missing) or 'none'}, too many {some(extra) or 'none'}; columns go by name, in any "
                f"order.{hints}"
            )
        order = [self.columns.index(name) for name in columns]
        return replace(self, columns=tuple(columns), values=self.values[:, order])


def read_gene_features(path: str | Path) -> GeneFeatures:
    """Read a table with the column ``gene`` and a column of numbers a feature, in any order.

    Args:
        path: A table, see ``tables.read_table``.

    Raises:
        InputError: No column ``gene``; a row without a gene, or with a date for it; a column that holds no numbers; a
            gene twice; a feature that is missing, infinite or too large. Names genes and columns.
    """
    table = read_table(path)
    require_columns(path, table, ["gene"])
    genes = text_cells(table, "gene")
    empty = [f"row {i + 2}" for i, name in enumerate(genes) if not name]
    if empty:
        raise InputError(f"{path}: {len(empty)} row(s) without a gene: {some(empty)}")
    refuse_spoiled_names(path, "gene", genes)
    columns = [column for column in table.columns if column != "gene"]
    numbers = {column: number_cells(table[column], column, path, lenient=False) for column in columns}
    text = [column for column, values in numbers.items() if values is None]
    if text or not columns:
        raise InputError(
            f"{path}: columns that hold no numbers: {some(text)}; leave them out"
            if text
            else f"{path} has no column of features beside 'gene'"
        )
    values = np.column_stack([column for column in numbers.values() if column is not None])
    features = GeneFeatures(np.array(genes, dtype=str), tuple(columns), single_precision(path, values, columns))
    try:
        return features.validate()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
