"""Gene Ontology terms of yeast: annotations of genes, and the hierarchy."""

from __future__ import annotations

import numpy as np

from torchcell.data.cache import cached_network
from torchcell.data.gene_names import ORF, yeast_gene_names
from torchcell.data.network import Network
from torchcell.data.sources import fetch

RECIPE = 1  # raise it when a parser changes, so that no older cache is read


def yeast_gene_ontology(reverse: bool = True) -> list[Network]:
    """Direct annotations and the hierarchy of terms, all directed, weight 1.

    Args:
        reverse: Add ``annotates`` from term to gene.

    Returns:
        ``annotated`` gene -> term and ``is_a`` child -> parent.
    """
    parsers = {"annotated": _annotated, "is_a": _hierarchy}
    if reverse:
        parsers["annotates"] = _annotates
    return [
        cached_network(f"ontology-{name}", ["yeast_go", "yeast_gene_names"], {"recipe": RECIPE, "network": name}, parse)
        for name, parse in parsers.items()
    ]


def _annotated() -> Network:
    """One row a term, its genes' symbols joined by |; a symbol may be an ORF or an alias."""
    import pandas as pd

    path = fetch("yeast_go")["GO_annotations-559292-direct-allev.tsv"]
    table = pd.read_csv(path, sep="\t", dtype=str, na_filter=False)
    symbols = [cell.split("|") for cell in table["gene_symbols"]]
    term = np.repeat(table["go_id"].to_numpy(dtype=str), [len(cell) for cell in symbols])
    listed = [symbol for cell in symbols for symbol in cell]
    found, lost = yeast_gene_names().resolve_all(listed)
    orf = np.array(
        [name or (symbol if ORF.fullmatch(symbol) else "") for name, symbol in zip(found, listed, strict=True)]
    )
    pairs = np.unique(np.stack([orf[orf != ""], term[orf != ""]]), axis=1)
    lost["annotations of genes without an ORF"] = int((orf == "").sum())
    ones = np.ones(pairs.shape[1], dtype=np.float32)
    return Network("annotated", pairs[0], pairs[1], ones, directed=True, lost=lost, target_type="term")


def _annotates() -> Network:
    there = _annotated()
    return Network("annotates", there.target, there.source, there.weight, directed=True, source_type="term")


def _hierarchy() -> Network:
    """Two columns without header, child and parent, written GO_0043232."""
    path = fetch("yeast_go")["yeast_go_child_2_parent.txt"]
    rows = [line.replace("GO_", "GO:").split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    child, parent = np.array(rows, dtype=str).T
    ones = np.ones(len(child), dtype=np.float32)
    return Network("is_a", child, parent, ones, directed=True, source_type="term", target_type="term")
