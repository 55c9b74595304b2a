"""The network on the perturbed cell, on the k-hop neighborhood of each perturbation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from torchcell.graph.cell_graph import CSR, CellGraph, owner
from torchcell.graph.neighborhood import Closure, Subgraph, induced
from torchcell.nn.ragged import segment_sum
from torchcell.nn.relations import Cell, Pairs, out_edges, relational_product, reversed_csr
from torchcell.nn.sparse import multiply
from torchcell.screen.models.perturbed_cell_gnn.layers import RelationalLayer
from torchcell.screen.models.perturbed_cell_gnn.perturbed_cell import (
    KEPT_BYTES,
    PerturbedCell,
    WildType,
    by_sample,
    in_chunks,
    inverse,
)


def first_layer(
    layer: RelationalLayer,
    pairs: Pairs,
    x_ND: Float[Tensor, "N D"],
    node_C: Int[Tensor, " C"],
    keep_C: Float[Tensor, " C"],
) -> tuple[Float[Tensor, "C D"], Float[Tensor, "C D"]]:
    """An additive layer on the neighborhoods before and after the deletion.

    All rows of one node have the same input, so the products with W_r have one row a node, not one a row.

    Args:
        layer: The first layer.
        pairs: Edges within the neighborhoods, over their rows.
        x_ND: Input features of all nodes.
        node_C: Node of each row.
        keep_C: 0 at deleted rows.
    """
    outputs = []
    for keep in (None, keep_C):
        shared = []
        for forward, _ in pairs:
            weight = forward.weight if keep is None else forward.weight * keep[forward.indices]
            csr = CSR(forward.indptr, node_C[forward.indices].int(), weight)
            shared.append((csr, reversed_csr(csr, len(x_ND))))
        y_CD = relational_product(shared, x_ND, layer.weight, True)
        outputs.append(layer.update(x_ND[node_C], y_CD, keep))
    return outputs[0], outputs[1]


def pooled_layer(
    layer: RelationalLayer,
    pairs: Pairs,
    before_CD: Float[Tensor, "C D"],
    after_CD: Float[Tensor, "C D"],
    keep_C: Float[Tensor, " C"],
    rows_P: Int[Tensor, " P"],
    gone_K: Int[Tensor, " K"],
    ptr_P: Int[Tensor, " P"],
) -> Float[Tensor, "B D"]:
    """What a linear last layer loses, summed over each neighborhood; see ``pooled_change``.

    Args:
        layer: The last layer.
        pairs: Edges within the neighborhoods, over their rows.
        before_CD: Its input before the deletion.
        after_CD: Its input after it.
        keep_C: 0 at deleted rows.
        rows_P: Pointers of the neighborhoods [B + 1].
        gone_K: Deleted rows.
        ptr_P: Pointers of the deleted rows [B + 1].
    """
    delta_CD, weight_RDK = after_CD - before_CD, layer.weight
    assert weight_RDK is not None
    share_RC = torch.stack([multiply(backward, keep_C[:, None])[:, 0] for _, backward in pairs])
    sums_RBD = relational_product([by_sample(share_RC, rows_P)], delta_CD, None, True)
    through_BD = torch.bmm(sums_RBD.unflatten(0, (len(pairs), -1)), weight_RDK).sum(0)
    itself_BD = segment_sum(delta_CD * keep_C[:, None], rows_P) @ layer.own_matrix
    into = []
    for forward, _ in pairs:
        edge, size, _ = out_edges(forward, gone_K)
        indptr = torch.cat([size.new_zeros(1), size.cumsum(0)]).int()
        csr = CSR(indptr, forward.indices[edge], forward.weight[edge])
        into.append((csr, reversed_csr(csr, len(before_CD))))
    arrived_RKD = relational_product(into, before_CD, None, False)
    out_KD = layer.update(before_CD[gone_K], torch.bmm(arrived_RKD, weight_RDK).sum(0))
    return segment_sum(out_KD, ptr_P) - through_BD - itself_BD


DENSE = 0.3
"""Share of all nodes in an average neighborhood from which a mask over the whole graph serves; not tuned."""

CHUNK_BYTES = 100e6
"""Neighborhoods computed at once: about 256 pairs of yeast, twice as fast as 1,024 that leave the cache (notes)."""


def lost_within(
    cell: PerturbedCell,
    graph: CellGraph,
    closure: Closure,
    wild: WildType,
    node_K: Int[Tensor, " K"],
    ptr_P: Int[Tensor, " P"],
) -> Float[Tensor, "B D"]:
    r"""Sum over the nodes of the neighborhood of h(G_k) - h(G_k \ S).

    Small neighborhoods are made edge lists of their own, all samples side by side; large ones are a mask over
    the shared graph, one sample at a time. Weights by wild-type degree are those of the whole graph in both.

    L layers change nodes up to L hops from S, and these read up to 2 L hops; without the last layer's nonlinearity,
    2 (L - 1). A neighborhood as large as that gives the whole graph's numbers, by the whole graph's faster strategies.

    Args:
        cell: The layers and relations.
        graph: Where the relations come from.
        closure: Who is within k hops of whom.
        wild: The whole cell before.
        node_K: Nodes that go, sorted and unique within a set [K].
        ptr_P: Pointers of the sets [B + 1].
    """
    if reads_all(cell, closure.k):
        return cell.lost(wild, node_K, ptr_P)
    x_ND = wild.x[0]
    inside_C, rows_P = closure.ragged(node_K, ptr_P)
    if cell.mixes_nodes or len(inside_C) > DENSE * cell.stack.n_nodes * (len(ptr_P) - 1):
        return _by_mask(cell, x_ND, inside_C, rows_P, node_K, ptr_P)

    def side_by_side(node_K: Tensor, ptr_P: Tensor) -> Tensor:
        return _side_by_side(cell, x_ND, induced(graph, *closure.ragged(node_K, ptr_P)), node_K, ptr_P)

    # Some 300 bytes a row, and 20 for each edge of a row, of which about a quarter stays.
    bytes_C = 300 + 20 * cell.out_degree[inside_C].float()
    cost_B = 8.0 * cell.stack.n_nodes + segment_sum(bytes_C[:, None], rows_P)[:, 0]
    return in_chunks(side_by_side, node_K, ptr_P, cost_B, CHUNK_BYTES)


def reads_all(cell: PerturbedCell, k: int) -> bool:
    """Whether a neighborhood of k hops holds everything that the layers read for the difference."""
    return k >= 2 * (len(cell.layers) - cell.pools) and not cell.mixes_nodes


def _side_by_side(
    cell: PerturbedCell, x_ND: Tensor, subgraph: Subgraph, node_K: Tensor, ptr_P: Tensor
) -> Float[Tensor, "B D"]:
    """Both computations on one block-diagonal graph of all neighborhoods."""
    pairs, kind_C = _pairs(cell, subgraph), cell.kind_N[subgraph.node]
    x_CD = x_ND[subgraph.node]
    gone_K = subgraph.position(owner(ptr_P, len(node_K)), node_K)
    keep_C = torch.ones_like(x_CD[:, 0]).index_fill(0, gone_K, 0.0)
    whole = Cell(pairs, kind_C, None, _scale(cell, pairs, torch.ones_like(keep_C)))
    less = Cell(pairs, kind_C, keep_C, _scale(cell, pairs, keep_C))
    before_CD, after_CD, layers = x_CD, x_CD * keep_C[:, None], cell.steps
    if isinstance(layers[0], RelationalLayer) and layers[0].additive and not cell.true_degree:
        before_CD, after_CD = first_layer(layers[0], pairs, x_ND, subgraph.node, keep_C)
        layers = layers[1:]
    for layer in layers:
        if layer is layers[-1] and cell.pools and isinstance(layer, RelationalLayer):
            return pooled_layer(layer, pairs, before_CD, after_CD, keep_C, subgraph.ptr, gone_K, ptr_P)
        before_CD, after_CD = layer(before_CD, whole), layer(after_CD, less)
    return segment_sum(before_CD - after_CD, subgraph.ptr)


def _pairs(cell: PerturbedCell, subgraph: Subgraph) -> list[tuple[CSR, CSR]]:
    """The sub-graph's relations, weighed as in the whole cell."""
    pairs = []
    for number, relation in enumerate(cell.stack.relations):
        forward, backward = subgraph.csr(relation), subgraph.csr(relation, transpose=True)
        if cell.stack.mean:
            inverse_C = cell.stack.inverse_degree[number, subgraph.node].float()  # rounded as the stack rounds
            row_E = inverse_C.repeat_interleave(forward.indptr.diff(), output_size=len(forward.indices))
            forward = forward._replace(weight=forward.weight.float() * row_E)
            backward = backward._replace(weight=backward.weight.float() * inverse_C[backward.indices])
        pairs.append((forward, backward))
    return pairs


def _scale(cell: PerturbedCell, pairs: Sequence[tuple[CSR, CSR]], keep_C: Tensor) -> Tensor | None:
    """One over the degree among the nodes that are there, where the cell asks for it."""
    if not cell.true_degree:
        return None
    absolute = [forward._replace(weight=forward.weight.abs()) for forward, _ in pairs]
    return inverse(torch.stack([multiply(csr, keep_C[:, None])[:, 0] for csr in absolute]))


def _by_mask(
    cell: PerturbedCell, x_ND: Tensor, inside_C: Tensor, rows_P: Tensor, node_K: Tensor, ptr_P: Tensor
) -> Float[Tensor, "B D"]:
    rows, ends, lost = rows_P.tolist(), ptr_P.tolist(), []
    kept = x_ND.element_size() * (len(ends) - 1) * x_ND.numel() * 6 * len(cell.layers)
    again = torch.is_grad_enabled() and kept > KEPT_BYTES and not cell.mixes_nodes

    def tile(inside: Tensor, removed: Tensor) -> Float[Tensor, " D"]:
        there_N = torch.zeros_like(x_ND[:, 0]).index_fill(0, inside, 1.0)
        both = []
        for keep_N in (there_N, there_N.index_fill(0, removed, 0.0)):
            y_ND, left = x_ND * keep_N[:, None], cell.cell(x_ND, keep_N)
            for layer in cell.layers:
                y_ND = layer(y_ND, left)
            both.append(y_ND)
        return (both[0] - both[1]).sum(0)

    for b in range(len(ends) - 1):
        arguments = inside_C[rows[b] : rows[b + 1]], node_K[ends[b] : ends[b + 1]]
        lost.append(checkpoint(tile, *arguments, use_reentrant=False) if again else tile(*arguments))
    return torch.stack(lost) if lost else x_ND.new_zeros(0, x_ND.shape[1])
