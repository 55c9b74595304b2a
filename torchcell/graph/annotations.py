"""What is annotated to a gene, as a table of terms."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from torchcell.data.errors import InputError
from torchcell.graph.cell_graph import CellGraph

ANNOTATED, ABOVE = "annotated", "is_a"
"""Relations from genes to terms, and from a term to those above it; see ``torchcell.data.gene_ontology``."""


def has_annotations(graph: CellGraph) -> bool:
    """Whether the graph says which terms its genes have."""
    return ANNOTATED in graph.relations


def annotation_table(graph: CellGraph) -> sp.csr_matrix:
    r"""TF-IDF of the terms of each gene: x_gt = log(n / n_t) where g has t or a term below it, rows of length 1.

    Args:
        graph: Its relation ``annotated`` runs from genes to terms; ``is_a``, if it is there, from a term to the
            terms above it, to which annotations are propagated.

    Returns:
        [genes, terms], float32; n counts the genes with any annotation. The row of a gene without is empty.
    """
    source, term = graph.ends(ANNOTATED)
    if source != "gene":
        raise InputError(f"relation {ANNOTATED!r} must run from genes, not from {source}s")
    has = (graph.scipy(ANNOTATED).T != 0).tocsr()
    if ABOVE in graph.relations and graph.ends(ABOVE) == (term, term):
        above = (graph.scipy(ABOVE).T != 0).tocsr()
        held = -1
        while has.nnz > held:  # one level a round; a cycle adds nothing the second time
            held = has.nnz
            has = (has + has @ above).tocsr()
    count = np.asarray(has.sum(0)).ravel()
    n = int((np.diff(has.indptr) > 0).sum())
    return unit_rows((has.astype(np.float32) @ sp.diags(np.log(n / np.maximum(count, 1)))).tocsr())


def unit_rows(table: sp.csr_matrix) -> sp.csr_matrix:
    """Rows scaled to length 1; empty rows stay empty."""
    length = np.sqrt(np.asarray(table.multiply(table).sum(1)).ravel())
    scale = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
    return (sp.diags(scale) @ table).tocsr().astype(np.float32)
