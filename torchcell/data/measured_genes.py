"""Symbols of one list looked up among the genes of another: exact names, then case, then aliases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from torchcell.data.errors import InputError
from torchcell.data.gene_names import GeneNames
from torchcell.data.places import located


class MeasuredGenes:
    """The measured genes by any of their names; exact names count most, then case, then aliases.

    Args:
        genes: Names of the genes [G].
        names: Aliases; none: symbols are compared without case.
    """

    def __init__(self, genes: Sequence[str] | np.ndarray, names: GeneNames | None = None) -> None:
        own = [str(gene) for gene in genes]
        self.names, self.exact = names, set(own)
        self.folded = _only({gene.upper() for gene in own}, ((gene.upper(), gene) for gene in own))
        resolved = [(names.resolve(gene), gene) for gene in own] if names else []
        self.by_name = _only({name for name, _ in resolved if name}, resolved)
        self.resolved = resolved

    def among(self, symbols: Sequence[str]) -> dict[str, str]:
        """Measured gene -> the first symbol that names it, in the order of ``symbols``."""
        found: dict[str, str] = {}
        for symbol in symbols:
            gene = self.find(symbol)
            if gene is not None:
                found.setdefault(gene, symbol)
        return found

    def find(self, symbol: str) -> str | None:
        """The gene that a symbol names; none where no gene or more than one answers to it."""
        if symbol in self.exact:
            return symbol
        name = self.names.resolve(symbol) if self.names else None
        return self.folded.get(symbol.upper()) or (self.by_name.get(name) if name else None)

    def unclear(self, symbols: Iterable[str]) -> list[str]:
        """What of the aliases keeps symbols from being found, e.g. ``old1 = A or B``; it is never guessed."""
        if self.names is None:
            return []
        wanted = {symbol: self.names.candidates(symbol) for symbol in symbols if self.find(symbol) is None}
        open_ = {symbol: names for symbol, names in wanted.items() if len(names) > 1}
        every = set().union(*wanted.values())
        for name, gene in self.resolved:
            names = self.names.candidates(gene)
            if name is None and names & every:
                open_[gene] = names
        single = {next(iter(names)): symbol for symbol, names in wanted.items() if len(names) == 1}
        for name, symbol in single.items():
            genes = {gene for own, gene in self.resolved if own == name}
            if len(genes) > 1:
                open_[symbol] = genes
        return [f"{symbol} = {' or '.join(sorted(names))}" for symbol, names in sorted(open_.items())]


def alias_table(
    path: str | Path | None, columns: Sequence[str] = ("alias", "gene"), separator: str = ";"
) -> GeneNames | None:
    """The names of a user's table; none where there is no table.

    Args:
        path: CSV, or tab-separated.
        columns: Of the aliases, and of the name they stand for.
        separator: Between the aliases in a cell.

    Raises:
        InputError: No such file, a column that it lacks, not two columns.
    """
    if path is None:
        return None
    if len(columns) != 2:
        raise InputError(f"alias_columns={list(columns)}: name two, the aliases' and the gene's")
    path = located(path, "no table of gene names")
    alias, name = columns
    return GeneNames.from_table(path, alias, name, separator)


def _only(keys: set[str], pairs: Iterable[tuple[str | None, str]]) -> dict[str, str]:
    """key -> gene where exactly one gene has it: no guess between several."""
    genes: dict[str, list[str]] = {key: [] for key in keys}
    for key, gene in pairs:
        if key in genes:
            genes[key].append(gene)
    return {key: found[0] for key, found in genes.items() if len(found) == 1}
