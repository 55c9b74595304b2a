"""First and last layer on many neighbourhoods side by side, without a product a row where one a node does."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchcell.graph.cell_graph import CSR
from torchcell.nn.pooled_change import by_sample
from torchcell.nn.ragged import segment_sum
from torchcell.nn.relation_stack import out_edges, reversed_csr
from torchcell.nn.relational_layer import RelationalLayer
from torchcell.nn.relational_product import Pairs, relational_product
from torchcell.nn.spmm import multiply


def first_layer(
    layer: RelationalLayer,
    pairs: Pairs,
    x_ND: Float[Tensor, "N D"],
    node_C: Int[Tensor, " C"],
    keep_C: Float[Tensor, " C"],
) -> tuple[Float[Tensor, "C D"], Float[Tensor, "C D"]]:
    """An additive layer on the neighbourhoods before and after the deletion.

    All rows of one node have the same input, so the products with W_r have one row a node, not one a row.

    Args:
        layer: The first layer.
        pairs: Edges within the neighbourhoods, over their rows.
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
    """What a linear last layer loses, summed over each neighbourhood; see ``pooled_change``.

    Args:
        layer: The last layer.
        pairs: Edges within the neighbourhoods, over their rows.
        before_CD: Its input before the deletion.
        after_CD: Its input after it.
        keep_C: 0 at deleted rows.
        rows_P: Pointers of the neighbourhoods [B + 1].
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
