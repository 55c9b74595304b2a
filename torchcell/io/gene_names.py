"""Names of genes: aliases, and symbols of one list looked up among the genes of another."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from torchcell.io.errors import InputError, some
from torchcell.io.paths import located
from torchcell.io.sources import fetch

ORF = re.compile(r"(Y[A-P][LR]\d{3}[WC](-[A-Z])?|[QR]\d{4}[WC]?)")
"""A systematic name of a yeast gene: nuclear, mitochondrial (Q) or of the 2-micron plasmid (R)."""

_SUFFIX = re.compile(r"(Δ|_DAMP)$")


class GeneNames:
    """Maps symbols and aliases to names; case does not matter.

    The tables are asked in order, the most trusted first, and the first that knows a symbol decides. A
    symbol that stands for several names in that table is ambiguous and resolves to nothing.

    Args:
        tables: Mappings alias -> names that it may stand for.
        names: Further names that stand for themselves; the names in the tables always do.
    """

    def __init__(self, tables: Sequence[Mapping[str, Iterable[str]]], names: Iterable[str] = ()) -> None:
        self._tables: list[dict[str, set[str]]] = []
        for table in tables:
            folded: dict[str, set[str]] = {}
            for alias, stands_for in table.items():
                folded.setdefault(alias.upper(), set()).update(stands_for)
            self._tables.append(folded)
        own = {name for table in self._tables for stands_for in table.values() for name in stands_for}
        self._own = {name.upper(): name for name in own.union(names)}

    @classmethod
    def from_table(cls, path: str | Path, alias: str, name: str, separator: str = ";") -> GeneNames:
        """Read a table with one name a row and its aliases in one cell.

        Args:
            path: The table, see ``tables.read_table``.
            alias: Column of the aliases; the first in a cell is the standard one and is trusted more.
            name: Column of the names.
            separator: What stands between the aliases in a cell.

        Raises:
            InputError: A column is missing, or holds dates where genes should be.
        """
        from torchcell.io.tables import read_table, refuse_spoiled_names, require_columns, text_cells

        table = read_table(path)
        require_columns(path, table, (alias, name))
        aliases, names = text_cells(table, alias), text_cells(table, name)
        for column, cells in ((alias, aliases), (name, names)):
            refuse_spoiled_names(path, column, cells)
        found = cls(alias_tables(zip((cell.split(separator) for cell in aliases), names, strict=True)))
        several = [symbol for table in found._tables for symbol in table if len(found.candidates(symbol)) > 1]
        if several := list(dict.fromkeys(several)):
            warnings.warn(
                f"{path}: {len(several):,} alias(es) stand for more than one gene and are not used: {some(several)}",
                stacklevel=2,
            )
        return found

    def candidates(self, symbol: str) -> set[str]:
        """All names that a symbol may stand for: none where it is unknown, several where it is ambiguous."""
        folded = symbol.upper()
        if folded in self._own:
            return {self._own[folded]}
        return next((table[folded] for table in self._tables if folded in table), set())

    def resolve(self, symbol: str) -> str | None:
        """The name of a gene, or None where the symbol is unknown or ambiguous."""
        found = self.candidates(symbol)
        return next(iter(found)) if len(found) == 1 else None

    def resolve_allele(self, allele: str) -> str | None:
        """The name of the gene of an allele such as ``ost3Δ``, ``PTA1_damp``, ``cdc28-13`` or ``tid3-1``.

        The longest beginning that is a known symbol counts, so that ``YDR169C-A`` stays whole.
        """
        parts = _SUFFIX.sub("", allele.upper()).split("-")
        for length in range(len(parts), 0, -1):
            found = self.candidates("-".join(parts[:length]))
            if found:
                return next(iter(found)) if len(found) == 1 else None
        return None

    def resolve_all(self, symbols: Iterable[str]) -> tuple[np.ndarray, dict[str, int]]:
        """Names of many symbols, and how many were dropped.

        Returns:
            Names, an empty string where there is none, and the counts ``unknown symbols`` and
            ``ambiguous symbols`` (different symbols, not rows), each only where it is not 0.
        """
        symbols = list(symbols)
        found = {symbol: self.candidates(symbol) for symbol in set(symbols)}
        why = Counter("unknown" if not names else "ambiguous" for names in found.values() if len(names) != 1)
        names = [next(iter(found[symbol])) if len(found[symbol]) == 1 else "" for symbol in symbols]
        return np.array(names, dtype=str), {f"{reason} symbols": count for reason, count in sorted(why.items())}


def alias_tables(rows: Iterable[tuple[Sequence[str], str]]) -> list[dict[str, set[str]]]:
    """Two tables from (aliases, name) rows: the standard symbols, which stand first, and all other aliases."""
    standard: dict[str, set[str]] = {}
    other: dict[str, set[str]] = {}
    for aliases, name in rows:
        for position, alias in enumerate(aliases):
            (other if position else standard).setdefault(alias.strip().upper(), set()).add(name)
    return [standard, other]


def yeast_symbols() -> list[tuple[list[str], str]]:
    """Rows (symbols, ORF) of the UniProt table of yeast.

    In rows of retrotransposons a stray ``;`` has moved the ORF one column to the right; it is taken from there.
    A cell that names two ORFs is left out: two rows.
    """
    import pandas as pd

    path = fetch("yeast_gene_names")["yeast_gene_names_uniprot.tsv"]
    table = pd.read_csv(path, sep="\t", dtype=str, na_filter=False)
    rows = []
    for symbols, locus, next_column in zip(table["symbol"], table["locus_name"], table["acc_number"], strict=True):
        orf = next((cell for cell in (locus, next_column) if ORF.fullmatch(cell)), None)
        if orf:
            rows.append((symbols.split(";"), orf))
    return rows


def yeast_gene_names(strains: Mapping[str, Iterable[str]] | None = None) -> GeneNames:
    """Yeast symbols to ORFs: given strain names first, then the standard symbols, then the aliases.

    A standard symbol is another gene's alias in 282 cases (RPS28B, PMT1, PAT1, ...); nomenclature gives it to
    the gene whose standard symbol it is.

    Args:
        strains: Allele or gene names of a screen that states their ORFs, trusted most.
    """
    tables = alias_tables(yeast_symbols())
    return GeneNames([strains, *tables] if strains else tables)


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
