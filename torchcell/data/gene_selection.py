"""``GeneSelection``: genes from an ordered list of sources with quotas, with where each came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from torchcell.data.conditions import Conditions
from torchcell.data.errors import InputError, some
from torchcell.data.gene_phases import Phase, entry_phase
from torchcell.data.gene_rankings import HighlyVariable, Perturbed
from torchcell.data.measured_genes import MeasuredGenes, alias_table

if TYPE_CHECKING:
    import pandas as pd


Entry = tuple[str, str, int]
"""Source of a gene, its name there, and its rank there."""


class Source(Protocol):
    """Where genes come from: a list, or a ranking of the measured genes."""

    name: str  # in genes.csv
    quota: int | None  # genes to take; none: all
    order: str  # variable: the most variable first; listed: in the order of ``symbols``

    def symbols(self, train: Conditions) -> list[str]:
        """Genes as the source names them."""


@dataclass(frozen=True, eq=False)
class SelectedGenes:
    """K genes, the earlier the higher their priority.

    Attributes:
        genes: Names as measured [K].
        symbol: Names in the source [K].
        source: Which source took each [K].
        rank: Place among the source's measured genes, from 1, int64 [K].
        notes: Sentences on what could not be done as asked.
    """

    genes: np.ndarray
    symbol: np.ndarray
    source: np.ndarray
    rank: np.ndarray
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.genes)

    def counts(self) -> dict[str, int]:
        """Genes by source, in order of priority."""
        names = list(dict.fromkeys(self.source.tolist()))
        return {name: int((self.source == name).sum()) for name in names}

    def to_table(self, phases: Sequence[Phase] = ()) -> pd.DataFrame:
        """``gene, source, rank, symbol, phase``, a row a gene: what ``genes.csv`` holds.

        Args:
            phases: Of a curriculum over these genes; ``phase`` is the number of that in which a gene becomes active.
        """
        import pandas as pd

        columns = {"gene": self.genes, "source": self.source, "rank": self.rank, "symbol": self.symbol}
        return pd.DataFrame({**columns, "phase": entry_phase(phases, len(self))})

    def save(self, path: str | Path, phases: Sequence[Phase] = ()) -> None:
        """Write ``to_table`` as CSV, TSV or parquet."""
        from torchcell.data.tables import write_table

        write_table(self.to_table(phases), path)


@dataclass(frozen=True)
class GeneSelection:
    """Choose genes by what training conditions show; call it with these conditions alone.

    Sources are asked in order; a gene goes to the first that wants it, and a later source takes its next one. A quota
    that the measured genes can't fill is noted, and filled with the most variable genes left.

    Attributes:
        sources: ``GeneList``, ``HighlyVariable``, ``Responsive``, ``Perturbed``.
        n_genes: Genes in all; none: what the quotas sum to. What is left over goes to highly variable genes.
        flavor: Of the highly variable genes that fill up and that order lists.
        aliases: A table of gene names, so that old and new symbols meet; none: symbols are compared without case.
        alias_columns: Its columns: the aliases, and the name they stand for.
        alias_separator: Between the aliases in a cell.
    """

    sources: Sequence[Source] = ()
    n_genes: int | None = None
    flavor: str = "seurat"
    aliases: str | Path | None = None
    alias_columns: Sequence[str] = ("alias", "gene")
    alias_separator: str = ";"

    def within(self, n_genes: int | None) -> GeneSelection:
        """The same selection of ``n_genes`` in all; one that asks for another number itself is an error."""
        if n_genes is None or n_genes == self.n_genes:
            return self
        if self.n_genes is not None:
            raise InputError(
                f"data.n_genes={n_genes:,} and data.selection.n_genes={self.n_genes:,} disagree; set one of them, or "
                "data.selection.n_genes=${data.n_genes}"
            )
        return replace(self, n_genes=n_genes)

    def __call__(self, train: Conditions) -> SelectedGenes:
        """Select among ``train.genes``.

        Raises:
            InputError: A list whose genes are all absent, quotas above ``n_genes``.
        """
        if not self.sources and self.n_genes is None:
            raise InputError("a gene selection needs sources, or n_genes for the most variable genes alone")
        asked = sum(source.quota or 0 for source in self.sources)
        if self.n_genes is not None and asked > self.n_genes:
            raise InputError(f"the quotas of the gene sources sum to {asked:,}, more than n_genes={self.n_genes:,}")
        variable = HighlyVariable(flavor=self.flavor).symbols(train)
        place, notes = {gene: i for i, gene in enumerate(variable)}, []
        names = alias_table(self.aliases, self.alias_columns, self.alias_separator)
        measured = MeasuredGenes(train.genes, names)
        taken: dict[str, Entry] = {}
        order: dict[str, int] = {}  # gene -> position of its source, fills included
        lacking = []
        for i, source in enumerate(self.sources):
            found = measured.among(_listed(source, train))
            if not found and not isinstance(source, Perturbed):  # of a screen none of whose targets is measured
                raise _absent(source, train)
            ordered = sorted(found, key=lambda gene: place[gene]) if source.order == "variable" else list(found)
            free = [(gene, rank) for rank, gene in enumerate(ordered, 1) if gene not in taken][: source.quota]
            taken |= {gene: (source.name, found[gene], rank) for gene, rank in free}
            order |= {gene: i for gene, _ in free}
            lacking.append(max((source.quota or 0) - len(free), 0))
        for i, (source, n) in enumerate(zip(self.sources, lacking, strict=True)):
            if n:  # only now, so that a fill takes no gene that a later list wants
                filled = _fill(taken, variable, n, f"highly_variable for {source.name}")
                order |= dict.fromkeys(filled, i)
                notes.append(
                    f"{source.name}: {(source.quota or 0) - n:,} of {source.quota:,} genes; {len(filled):,} highly "
                    "variable genes fill its quota"
                )
        if self.n_genes is not None:
            rest = _fill(taken, variable, self.n_genes - len(taken), "highly_variable")
            order |= dict.fromkeys(rest, len(self.sources))
        taken = {gene: taken[gene] for gene in sorted(taken, key=lambda gene: order[gene])}  # stable
        wanted = max(asked, self.n_genes or 0)
        if len(taken) < wanted:
            notes.append(f"{wanted:,} genes were asked for, and only {len(train.genes):,} are measured")
        source_of, symbol, rank_of = ([entry[i] for entry in taken.values()] for i in range(3))
        return SelectedGenes(
            genes=np.array(list(taken), dtype=str),
            symbol=np.array(symbol, dtype=str),
            source=np.array(source_of, dtype=str),
            rank=np.array(rank_of, dtype=np.int64),
            notes=notes,
        )


def _listed(source: Source, train: Conditions) -> list[str]:
    if source.quota is not None and source.quota < 1:
        raise InputError(f"the quota of {source.name!r} is {source.quota}; it must be 1 or more, or null for all")
    return source.symbols(train)


def _absent(source: Source, train: Conditions) -> InputError:
    listed = source.symbols(train)
    return InputError(
        f"none of the {len(listed):,} genes of {source.name!r} is measured in {train.name}: the list has "
        f"{some(listed, 3)}, the data {some(train.genes, 3)}; use symbols of the same kind and species"
    )


def _fill(taken: dict[str, Entry], variable: list[str], n: int, name: str) -> list[str]:
    """Take the ``n`` most variable genes that are left, or as many as there are."""
    free = [(gene, rank) for rank, gene in enumerate(variable, 1) if gene not in taken][: max(n, 0)]
    taken |= {gene: (name, gene, rank) for gene, rank in free}
    return [gene for gene, _ in free]
