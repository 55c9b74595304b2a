"""Which nodes go when genes are deleted: the genes, and the reactions that cannot do without them."""

from __future__ import annotations

import torch
from torch import Tensor

from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.ranges import owner


def deleted_nodes(graph: CellGraph, gene: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """The nodes that each set of deleted genes takes out of the cell.

    Args:
        graph: The wild type.
        gene: Members of all sets, int64 [M]; -1, a gene that the graph does not know, is never deleted.
        ptr: Set i is ``gene[ptr[i]:ptr[i + 1]]``, int64 [B + 1].

    Returns:
        Numbers among all nodes, sorted and each once within a set, int64 [K], and pointers [B + 1].
    """
    n_sets, n_nodes = len(ptr) - 1, graph.n_nodes
    key = (owner(ptr, len(gene)) * n_nodes + gene)[gene >= 0].unique()
    if graph.conjuncts is not None:
        losing, node = graph.conjuncts.lost(key // n_nodes, key % n_nodes)
        key = torch.cat([key, losing * n_nodes + node]).sort().values
    return key % n_nodes, torch.searchsorted(key, torch.arange(n_sets + 1, device=gene.device) * n_nodes)
