"""Which measured genes a model works on: lists, rankings, and the table that says where each came from."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from torchcell.cells.curriculum import Phase, entry_phase
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.splits import SPLITS
from torchcell.core.datamodule import drawn
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError, near, some
from torchcell.io.gene_names import MeasuredGenes, alias_table
from torchcell.io.paths import located
from torchcell.io.sources import fetch
from torchcell.io.tables import ENDINGS, read_table, refuse_spoiled_names, require_columns, text_cells
from torchcell.io.threads import threads_kept

if TYPE_CHECKING:
    import pandas as pd


KNOWN: dict[str, tuple[str, ...]] = {
    "transcription_factor": ("transcription_factor",),
    "cell_cycle": ("cell_cycle_S", "cell_cycle_G2M"),
    "metabolic": ("metabolic",),
    "pluripotency": ("pluripotency",),
}
"""Name -> its sets in the source ``gene_modules``; the hallmark sets are known by their own names besides."""


@configurable
class GeneList:
    """A list of genes as a source of a selection.

    Args:
        name: What ``genes.csv`` calls it; without ``path`` also which list it is, see ``KNOWN``.
        quota: Genes to take; none: all that are measured.
        path: A text file (a gene a line), a table with the column ``gene``, a GMT or a JSON file (set -> genes).
        sets: Of a GMT or JSON file, the sets to take; none: all.
        order: Which are taken where there are more: the most ``variable`` in training, or the first ``listed``.
    """

    def __init__(
        self,
        name: str,
        quota: int | None = None,
        path: str | Path | None = None,
        sets: str | Sequence[str] | None = None,
        order: Literal["variable", "listed"] = "variable",
    ) -> None:
        if order not in ("variable", "listed"):
            raise InputError(f"gene list {name!r}: order={order!r}; it must be variable or listed")
        self.name, self.quota, self.path, self.sets, self.order = name, quota, path, sets, order

    def symbols(self, train: Pseudobulk) -> list[str]:
        """The genes of the list as it names them, each once."""
        wanted = [self.sets] if isinstance(self.sets, str) else self.sets
        return known_list(self.name) if self.path is None else read_gene_list(self.path, wanted)


def known_list(name: str) -> list[str]:
    """A list by its name, e.g. ``transcription_factor`` or ``HALLMARK_HYPOXIA``.

    Raises:
        InputError: No list of that name; the message names the nearest.
    """
    (path,) = fetch("gene_modules").values()
    modules = json.loads(path.read_text(encoding="utf-8"))
    hallmarks = modules.pop("hallmark")
    sets: dict[str, list[str]] = {**modules, **hallmarks}
    sets |= {known: [gene for part in parts for gene in modules[part]] for known, parts in KNOWN.items()}
    if name not in sets:
        raise InputError(f"no gene list named {name!r}; the nearest are {near(name, list(sets)) or list(KNOWN)}")
    return list(dict.fromkeys(sets[name]))


def read_gene_list(path: str | Path, sets: Sequence[str] | None = None) -> list[str]:
    """The genes of a file in its order, each once.

    Args:
        path: ``.gmt``, ``.json`` (set -> genes, or a list), a table with the column ``gene``, else a gene a line.
        sets: Of a GMT or JSON file the sets to take; none: all.

    Raises:
        InputError: No such file, an unknown set, no genes.
    """
    path = located(path, "no gene list")
    if path.name.removesuffix(".gz").endswith(ENDINGS):
        table = read_table(path)
        require_columns(path, table, ["gene"])
        genes = text_cells(table, "gene")
    elif path.suffix in (".gmt", ".json"):
        genes = _of_sets(path, _read_gmt(path) if path.suffix == ".gmt" else _read_json(path), sets)
    else:
        genes = [line.split("#")[0].strip() for line in _text(path).splitlines()]
    refuse_spoiled_names(path, "gene", genes)
    found = list(dict.fromkeys(gene for gene in genes if gene))
    if not found:
        raise InputError(f"{path} names no genes")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text file: {error}; give a list of gene symbols") from error


def _read_gmt(path: Path) -> dict[str, list[str]]:
    """Lines ``set, description, gene, gene, ...`` between tabs."""
    rows = [line.split("\t") for line in _text(path).splitlines() if line.strip()]
    short = [row[0] for row in rows if len(row) < 3]
    if short:
        raise InputError(f"{path}: set {short[0]!r} has no genes; a GMT line is set, description, genes, between tabs")
    return {row[0]: [gene.strip() for gene in row[2:]] for row in rows}


def _read_json(path: Path) -> Mapping[str, list[str]]:
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read as JSON: {error}") from error
    sets = {path.stem: found} if isinstance(found, list) else found
    odd = [name for name, genes in sets.items() if not isinstance(genes, list)] if isinstance(sets, dict) else ["it"]
    if odd:
        raise InputError(f"{path}: {odd[0]!r} is no list of genes; a JSON file maps a set's name to its genes")
    return sets


def _of_sets(path: Path, found: Mapping[str, list[str]], sets: Sequence[str] | None) -> list[str]:
    for name in sets or ():
        if name not in found:
            raise InputError(
                f"{path} has no set {name!r}; the nearest are {near(name, list(found)) or list(found)[:5]}"
            )
    return [gene for name in (sets or found) for gene in found[name]]


LOGNORM_FLAVORS = ("seurat", "cell_ranger")
COUNT_FLAVORS = ("seurat_v3", "seurat_v3_paper", "pearson_residuals")
"""Ways to find highly variable genes that need raw counts."""


@configurable
class HighlyVariable:
    """Highly variable genes as scanpy ranks them over the training cells and their controls.

    scanpy takes all these cells in memory, sparse where they are, whether or not the record leaves them on disk.

    Args:
        quota: Genes to take; none: all.
        flavor: ``seurat`` or ``cell_ranger`` of log-normalized cells; ``seurat_v3``, ``seurat_v3_paper`` or
            ``pearson_residuals`` of raw counts.
        name: What ``genes.csv`` calls it.
    """

    order = "listed"

    def __init__(self, quota: int | None = None, flavor: str = "seurat", name: str = "highly_variable") -> None:
        self.quota, self.flavor, self.name = quota, flavor, name

    def symbols(self, train: Pseudobulk) -> list[str]:
        """All measured genes, the most variable first; genes of no variance last.

        Raises:
            InputError: An unknown flavor, one that needs raw counts where there are none, or a missing package.
        """
        import anndata
        import scanpy

        X = self._values(train)
        adata = anndata.AnnData(X[_cells_of(train)])
        try:
            with threads_kept():
                if self.flavor == "pearson_residuals":
                    how: dict[str, Any] = {"n_top_genes": adata.n_vars, "inplace": False}
                    found = scanpy.experimental.pp.highly_variable_genes(adata, **how)
                    score = found["residual_variances"]
                else:
                    n_top = None if self.flavor in LOGNORM_FLAVORS else adata.n_vars
                    found = scanpy.pp.highly_variable_genes(adata, flavor=self.flavor, n_top_genes=n_top, inplace=False)
                    score = found["dispersions_norm" if self.flavor in LOGNORM_FLAVORS else "variances_norm"]
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise InputError(
                f"{train.name}: scanpy finds no highly variable genes of flavor {self.flavor} in {adata.n_obs} cells x "
                f"{adata.n_vars} genes ({error}); use another flavor or more cells"
            ) from error
        rank = np.nan_to_num(np.asarray(score, dtype=np.float64), nan=-np.inf)
        return train.genes[np.lexsort((train.genes, -rank))].tolist()

    def _values(self, train: Pseudobulk) -> Any:
        if self.flavor in LOGNORM_FLAVORS:
            return train.cells.X
        if self.flavor not in COUNT_FLAVORS:
            known = [*LOGNORM_FLAVORS, *COUNT_FLAVORS]
            raise InputError(f"no flavor {self.flavor!r} of highly variable genes; the flavors are {known}")
        if train.cells.counts is None:
            raise InputError(
                f"flavor={self.flavor} needs raw counts, and {train.name} holds log-normalized values only; give "
                "a file of counts (scale: counts), or use flavor=seurat"
            )
        if self.flavor.startswith("seurat_v3") and importlib.util.find_spec("skmisc") is None:
            raise InputError(
                f"flavor={self.flavor} needs the package scikit-misc, which is not installed: pip install scikit-misc, "
                "or use flavor=seurat or pearson_residuals"
            )
        return train.cells.counts


@configurable
class Responsive:
    """Genes that training perturbations move most: root mean square over conditions of Welch's t against controls.

    Args:
        quota: Genes to take; none: all.
        name: What ``genes.csv`` calls it.
    """

    order = "listed"

    def __init__(self, quota: int | None = None, name: str = "responsive") -> None:
        self.quota, self.name = quota, name

    def symbols(self, train: Pseudobulk) -> list[str]:
        """All measured genes, the most responsive first."""
        total = np.zeros(len(train.genes))
        known: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for i, group in enumerate(train.group.tolist()):
            if group not in known:
                known[group] = _with_error(*train.control_moments(np.array([i])))
            mean, error = _with_error(*train.moments(i))
            spread = error + known[group][1]
            total += np.divide((mean - known[group][0]) ** 2, spread, out=np.zeros_like(mean), where=spread > 0)
        return train.genes[np.lexsort((train.genes, -total))].tolist()


@configurable
class Perturbed:
    """The perturbed genes of the training conditions, where they are measured.

    Args:
        quota: Genes to take; none: all. What is not measured leaves its place to highly variable genes.
        name: What ``genes.csv`` calls it.
    """

    order = "listed"

    def __init__(self, quota: int | None = None, name: str = "perturbed") -> None:
        self.quota, self.name = quota, name

    def symbols(self, train: Pseudobulk) -> list[str]:
        """Perturbed genes by name."""
        return sorted({gene for targets in train.targets for gene in targets})


def _cells_of(train: Pseudobulk) -> np.ndarray:
    """Positions of the conditions' cells and of their controls, sorted, each once."""
    return np.unique(np.concatenate([train.member, train.control_cells()]))


def _with_error(mean: np.ndarray, variance: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and squared standard error over n cells, each float64 [G]."""
    return mean, variance / max(n - 1, 1)


Entry = tuple[str, str, int]
"""Source of a gene, its name there, and its rank there."""


class Source(Protocol):
    """Where genes come from: a list, or a ranking of the measured genes."""

    name: str  # in genes.csv
    quota: int | None  # genes to take; none: all
    order: str  # variable: the most variable first; listed: in the order of ``symbols``

    def symbols(self, train: Pseudobulk) -> list[str]:
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
        from torchcell.io.tables import write_table

        write_table(self.to_table(phases), path)


@configurable
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
                f"data.n_genes={n_genes:,} and data.genes.selection.n_genes={self.n_genes:,} disagree; set one, "
                "or data.genes.selection.n_genes=${data.n_genes}"
            )
        return replace(self, n_genes=n_genes)

    def __call__(self, train: Pseudobulk) -> SelectedGenes:
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


def _listed(source: Source, train: Pseudobulk) -> list[str]:
    if source.quota is not None and source.quota < 1:
        raise InputError(f"the quota of {source.name!r} is {source.quota}; it must be 1 or more, or null for all")
    return source.symbols(train)


def _absent(source: Source, train: Pseudobulk) -> InputError:
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


def chosen(
    record: Pseudobulk,
    split: Mapping[str, Any],
    *,
    n_genes: int | None,
    max_cells: int | None,
    selection: GeneSelection | None,
    subset: int | None,
) -> tuple[Pseudobulk, SelectedGenes | None]:
    """The conditions that are left of ``record``, and the genes that their training part chooses, if any are chosen.

    Nothing depends on the run's seed: runs of one split are scored on the same cells.

    Args:
        record: All conditions over all genes.
        split: Keys of the ``split`` config.
        n_genes: Genes in all, also of a ``selection`` that does not say.
        max_cells: Cells in all; none: all of them.
        selection: Chooses the genes; none: the most variable ``n_genes``, or all of them.
        subset: Number of conditions, drawn by the split's seed; none: all of them.

    Raises:
        InputError: A selection of another number of genes than ``n_genes``, or what its parts refuse.
    """
    if max_cells is not None:
        record = record.limited(max_cells)
    record = drawn(record, subset, split)
    if selection is None and n_genes is None:
        return record, None
    train = record.subset(SPLITS.make(record, **split).index("train"))
    return record, (selection or GeneSelection()).within(n_genes)(train)
