"""The naive way, as a reference: B copies of the graph side by side, deleted nodes and their edges cut out."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from torchcell.graph.cell_graph import CSR, CellGraph
from torchcell.nn.hgt import HGT
from torchcell.nn.relations import Cell
from torchcell.screen.models.perturbed_cell_gnn.perturbed_cell import inverse


def edges(graph: CellGraph, relation: str) -> tuple[Tensor, Tensor, Tensor]:
    """Source, target and weight over the numbering of all nodes."""
    csr = graph.csr(relation)
    source, target = (graph.span(kind).start for kind in graph.ends(relation))
    row = torch.repeat_interleave(torch.arange(len(csr.indptr) - 1), csr.indptr.diff().long())
    return csr.indices.long() + source, row + target, csr.weight.double()


def lost_by_copies(layers, graph: CellGraph, relations, x_ND: Tensor, sets, mean: bool, true_degree: bool, within=None):
    """Sum over nodes of F(G) - F(G minus S) for each set, from an edge list with an offset a copy.

    ``within``: for each set the nodes of its sub-graph; all by default.
    """
    n, rows = graph.n_nodes, []
    for number, removed in enumerate(sets):
        there = torch.ones(n, dtype=torch.bool)
        if within is not None:
            there = within[number].clone()
        whole = _run(layers, graph, relations, x_ND, there, mean, true_degree)
        less = there.clone()
        less[removed] = False
        rows.append((whole - _run(layers, graph, relations, x_ND, less, mean, true_degree)).sum(0))
    return torch.stack(rows)


def _run(layers, graph, relations, x_ND, there, mean, true_degree):
    """The layers on the nodes that are there, messages gathered and scattered edge by edge."""
    left = there.nonzero()[:, 0]
    place = torch.full((len(there),), -1).index_put((left,), torch.arange(len(left)))
    x = x_ND[left]
    for layer in layers:
        if isinstance(layer, HGT):
            held = [_cut(graph, relation, there, place) for relation in relations]
            x = layer(x, Cell(held, kinds(graph)[left]))
            continue
        y = []
        for r, relation in enumerate(relations):
            source, target, weight = edges(graph, relation)
            if mean:  # rounded as the stack keeps it
                total = torch.zeros(len(there)).index_add(0, target, weight.abs().float())
                weight = (weight.float() * (1 / total)[target]).double()
            held = there[source] & there[target]
            source, target, weight = place[source[held]], place[target[held]], weight[held].to(x.dtype)
            message = x if layer.weight is None else x @ layer.weight[r]
            arrived = torch.zeros(len(left), message.shape[1], dtype=x.dtype)
            arrived = arrived.index_add(0, target, weight[:, None] * message[source])
            if true_degree:
                degree = torch.zeros(len(left), dtype=x.dtype).index_add(0, target, weight.abs())
                arrived = arrived * inverse(degree)[:, None]
            y.append(arrived)
        stacked = torch.stack(y)
        x = layer.update(x, stacked.sum(0) if layer.additive else stacked)
    return torch.zeros(len(there), x.shape[1], dtype=x.dtype).index_put((left,), x)


def _cut(graph, relation, there, place):
    """A relation on the nodes that are there, as a matrix of its own and its transpose."""
    source, target, weight = edges(graph, relation)
    held = there[source] & there[target]
    where = (place[target[held]].numpy(), place[source[held]].numpy())
    matrix = sp.csr_matrix((weight[held].numpy(), where), shape=(int(there.sum()),) * 2, dtype=np.float32)
    return tuple(
        CSR(*(torch.from_numpy(part) for part in (m.indptr, m.indices, m.data))) for m in (matrix, matrix.T.tocsr())
    )


def kinds(graph: CellGraph) -> Tensor:
    """Type of each node as a number."""
    number = torch.zeros(graph.n_nodes, dtype=torch.long)
    for i, kind in enumerate(graph.node_types):
        number[graph.span(kind)] = i
    return number
