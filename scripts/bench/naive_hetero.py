"""The naive way in PyG, to be compared with: every sample carries a copy of all edges and a mask per node type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, HeteroData
from torch_geometric.utils import k_hop_subgraph, subgraph

from torchcell.graph.cell_graph import CellGraph

EdgeType = tuple[str, str, str]


def edge_types(graph: CellGraph) -> dict[str, EdgeType]:
    """Relation -> PyG's name of it: source type, relation, target type."""
    return {relation: (ends[0], relation, ends[1]) for relation in graph.relations for ends in [graph.ends(relation)]}


def edge_index(graph: CellGraph, relation: str) -> Tensor:
    """Sources and targets of a relation's edges, counted within their types, int64 [2, E]."""
    csr = graph.csr(relation)
    target = torch.arange(len(csr.indptr) - 1, device=csr.indptr.device)
    return torch.stack([csr.indices.long(), torch.repeat_interleave(target, csr.indptr.diff())])


def hetero_data(graph: CellGraph, deleted_genes: Sequence[int], node_set: Tensor | None = None) -> HeteroData:
    """One sample: the full graph's ``edge_index`` and weight per relation, a boolean ``mask`` per node type.

    Args:
        graph: The wild-type graph.
        deleted_genes: Positions of the genes that are gone: False in the mask.
        node_set: Unified numbers of the only nodes that are seen, e.g. ``khop_nodes(...)[0]``; by default all.
    """
    mask = torch.ones(graph.n_nodes, dtype=torch.bool) if node_set is None else torch.zeros(graph.n_nodes).bool()
    if node_set is not None:
        mask[node_set] = True
    mask[list(deleted_genes)] = False
    data = HeteroData()
    for kind in graph.node_types:
        data[kind].mask = mask[graph.span(kind)].clone()
        data[kind].num_nodes = len(graph.names(kind))
    for relation, kind in edge_types(graph).items():
        data[kind].edge_index = edge_index(graph, relation)
        data[kind].edge_weight = graph.csr(relation).weight.clone()
    return data


class NaiveLoader:
    """Collates samples of the full graph with ``torch_geometric.data.Batch``, in order.

    Args:
        graph: The wild-type graph.
        sets: Positions of each sample's deleted genes.
        batch_size: Samples a batch; the last one may be smaller.
        node_sets: The nodes that each sample sees; by default all.
    """

    def __init__(
        self,
        graph: CellGraph,
        sets: Sequence[Sequence[int]],
        batch_size: int,
        node_sets: Sequence[Tensor] | None = None,
    ) -> None:
        self.graph, self.sets, self.batch_size, self.node_sets = graph, sets, batch_size, node_sets

    def __len__(self) -> int:
        return -(-len(self.sets) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.sets), self.batch_size):
            chosen = range(first, min(first + self.batch_size, len(self.sets)))
            seen = [None if self.node_sets is None else self.node_sets[i] for i in chosen]
            samples = [hetero_data(self.graph, self.sets[i], s) for i, s in zip(chosen, seen, strict=True)]
            yield Batch.from_data_list(samples)


class NaiveNetwork(nn.Module):
    r"""H' = relu(sum over r of A_r (H W_r) + H W_0), masked before and after each layer, then a masked mean a sample.

    Messages are gathered at sources as an E x d tensor, weighted, and scatter-added at targets. A node type without a
    node left in a sample has the mean 0; several types' means are added.

    Args:
        dim: Width d of input and output.
        layers: Number of layers.
        relations: Relation -> (source type, relation, target type), as ``edge_types`` gives it.
    """

    def __init__(self, dim: int, layers: int, relations: Mapping[str, EdgeType]) -> None:
        super().__init__()
        self.relations = dict(relations)
        self.by_relation = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(dim, dim, bias=False) for name in relations}) for _ in range(layers)
        )
        self.by_self = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(layers))

    def forward(self, x: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Pooled states [B, d] of the batch, from one wild-type input [n, d] a node type, copied for each sample."""
        n_samples = batch.num_graphs
        mask = {kind: batch[kind].mask[:, None].to(x[kind].dtype) for kind in x}
        state = {kind: x[kind].repeat(n_samples, 1) for kind in x}
        for by_relation, by_self in zip(self.by_relation, self.by_self, strict=True):
            state = {kind: h * mask[kind] for kind, h in state.items()}
            merged = {kind: by_self(h) for kind, h in state.items()}
            for name, (source, relation, target) in self.relations.items():
                edge = batch[source, relation, target]
                message = by_relation[name](state[source])[edge.edge_index[0]] * edge.edge_weight[:, None]
                merged[target] = merged[target].index_add(0, edge.edge_index[1], message)
            state = {kind: torch.relu(h) * mask[kind] for kind, h in merged.items()}
        pooled = next(iter(x.values())).new_zeros(n_samples, next(iter(x.values())).shape[1])
        for kind, h in state.items():
            total = torch.zeros_like(pooled).index_add(0, batch[kind].batch, h)
            left = total.new_zeros(n_samples, 1).index_add(0, batch[kind].batch, mask[kind])
            pooled = pooled + total / left.clamp(min=1)
        return pooled


def khop_nodes(graph: CellGraph, genes: Sequence[int], k: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The neighborhood by PyG's own functions: ``k_hop_subgraph`` over all relations, ``subgraph`` for each.

    Args:
        graph: The wild-type graph.
        genes: Positions of the sample's genes.
        k: Hops; edges of all relations count in both directions.

    Returns:
        Unified node numbers, sorted, int64 [n]; relation -> relabeled ``edge_index`` int64 [2, E].
    """
    return khop_of_edges(unified_edges(graph), graph.n_nodes, genes, k)


def unified_edges(graph: CellGraph) -> dict[str, Tensor]:
    """Relation -> ``edge_index`` in unified numbering: what published code holds ready before it loops over samples."""
    start = {kind: graph.span(kind).start for kind in graph.node_types}
    shift = {relation: torch.tensor([[start[kind] for kind in graph.ends(relation)]]).T for relation in graph.relations}
    return {relation: edge_index(graph, relation) + shift[relation] for relation in graph.relations}


def khop_of_edges(
    edges: Mapping[str, Tensor], n_nodes: int, genes: Sequence[int], k: int, joined: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """``khop_nodes`` from edges made ready with ``unified_edges``; ``joined`` is ``both_ways(edges)``, made once."""
    joined = both_ways(edges) if joined is None else joined
    nodes = k_hop_subgraph(torch.as_tensor(genes), k, joined, num_nodes=n_nodes)[0]
    kept = {name: subgraph(nodes, pairs, relabel_nodes=True, num_nodes=n_nodes)[0] for name, pairs in edges.items()}
    return nodes, kept


def both_ways(edges: Mapping[str, Tensor]) -> Tensor:
    """The different pairs of all relations in both directions, int64 [2, E]."""
    every = torch.cat(list(edges.values()), dim=1)
    return torch.cat([every, every.flip(0)], dim=1).unique(dim=1)
