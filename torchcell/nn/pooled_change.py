"""The sum over all nodes of a linear layer's change from column sums; it visits only edges into deleted nodes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchcell.graph.cell_graph import CSR
from torchcell.graph.ranges import owner
from torchcell.nn.first_change import Change
from torchcell.nn.ragged import segment_sum
from torchcell.nn.relation_stack import RelationStack, out_edges
from torchcell.nn.relational_layer import RelationalLayer
from torchcell.nn.relational_product import relational_product


def pooled_change(
    stack: RelationStack,
    layer: RelationalLayer,
    out_ND: Float[Tensor, "N D"],
    change: Change,
    node_K: Int[Tensor, " K"],
    ptr_P: Int[Tensor, " P"],
) -> Float[Tensor, "B D"]:
    r"""Wild type minus perturbed, summed over the nodes, for a last layer without any nonlinearity.

    .. math::
        -\sum_r \Big(\sum_j c_{rj} \Delta_j\Big) W_r - \Big(\sum_{j \notin S} \Delta_j\Big) W_0 + \sum_{i \in S} h_i,
        \quad c_{rj} = \sum_{i \notin S} A_r[i, j]

    The sums over j come before the products with W, so these have one row a sample and not one a node.

    Args:
        stack: The relations, their weights being those of the wild type.
        layer: An additive, linear layer.
        out_ND: The layer's output on the whole cell [M, D].
        change: Of the layer's input.
        node_K: Nodes that go, sorted and unique within a set [K].
        ptr_P: Pointers of the sets [B + 1].
    """
    n_sets, delta_CD = len(ptr_P) - 1, change.delta_CD
    share_RC = _column_sums(stack)[:, change.node_C] - _into_deleted(stack, change, node_K, ptr_P)
    sums_RBD = relational_product([by_sample(share_RC, change.ptr_P)], delta_CD, None, True).unflatten(
        0, (len(stack), n_sets)
    )
    assert layer.weight is not None
    through = torch.bmm(sums_RBD, layer.weight).sum(0)
    itself = segment_sum(delta_CD * change.keep_C[:, None], change.ptr_P) @ layer.own_matrix
    return segment_sum(out_ND[node_K], ptr_P) - through - itself


def _column_sums(stack: RelationStack) -> Float[Tensor, "R N"]:
    """Sum of the weights of the edges that leave each node; each time anew, in the precision that the stack has now."""
    sums = []
    for number in range(len(stack)):
        csr = stack.csr(number, transpose=True)
        sums.append(torch.segment_reduce(csr.weight, "sum", offsets=csr.indptr, axis=0))
    return torch.stack(sums)


def _into_deleted(stack: RelationStack, change: Change, node_K: Tensor, ptr_P: Tensor) -> Float[Tensor, "R C"]:
    """Sum of the weights of the edges from each changed node into the deleted nodes of its sample."""
    key_C = owner(change.ptr_P, len(change.node_C)) * stack.n_nodes + change.node_C
    base_K = owner(ptr_P, len(node_K)) * stack.n_nodes
    rows = []
    for number in range(len(stack)):
        csr = stack.csr(number)  # row i holds the sources of i
        edge, _, owner_E = out_edges(csr, node_K)
        key_E = base_K[owner_E] + csr.indices[edge]
        row_E = torch.searchsorted(key_C, key_E).clamp(max=len(key_C) - 1)
        known = key_C[row_E] == key_E  # the source of a directed edge may be unchanged
        total = csr.weight.new_zeros(len(key_C))
        rows.append(total.index_add(0, row_E[known], csr.weight[edge][known]))
    return torch.stack(rows)


def by_sample(share_RC: Tensor, ptr_P: Tensor) -> tuple[CSR, CSR]:
    """The matrix [R * B, C] that sums rows by sample with their relation's share, and its transpose."""
    n_relations, n_rows = share_RC.shape
    shift = torch.arange(n_relations, device=ptr_P.device)[:, None]
    indptr = torch.cat([(ptr_P[:-1] + n_rows * shift).flatten(), ptr_P.new_tensor([n_relations * n_rows])])
    column = torch.arange(n_rows, device=ptr_P.device).repeat(n_relations)
    forward = CSR(indptr.int(), column.int(), share_RC.flatten())
    target_CR = owner(ptr_P, n_rows)[:, None] + (len(ptr_P) - 1) * shift.T
    starts = torch.arange(n_rows + 1, device=ptr_P.device) * n_relations
    return forward, CSR(starts.int(), target_CR.flatten().int(), share_RC.T.flatten())
