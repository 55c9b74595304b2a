"""The first layer of a perturbed cell: only the nodes that a deletion reaches, for all samples of a batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torchcell.graph.cell_graph import CSR
from torchcell.graph.ranges import owner
from torchcell.nn.relation_stack import Columns, RelationStack, out_edges
from torchcell.nn.relational_layer import RelationalLayer
from torchcell.nn.relational_product import column_product


@dataclass(frozen=True, eq=False)
class Change:
    """Nodes whose features differ from the wild type's, ragged over the samples of a batch.

    Attributes:
        node_C: Node of each row, sorted within a sample, int64 [C].
        ptr_P: Rows of sample b are ``ptr[b]`` to ``ptr[b + 1]`` [B + 1].
        delta_CD: Perturbed minus wild-type features [C, D]; minus the wild type's at deleted nodes.
        keep_C: 0 at deleted nodes, else 1 [C].
    """

    node_C: Tensor
    ptr_P: Tensor
    delta_CD: Tensor
    keep_C: Tensor

    def part(self, start: int, stop: int) -> Change:
        """Rows ``start`` to ``stop`` as one sample."""
        ptr_P = self.ptr_P.new_tensor([0, stop - start])
        return Change(self.node_C[start:stop], ptr_P, self.delta_CD[start:stop], self.keep_C[start:stop])


def first_change(
    stack: RelationStack,
    layer: RelationalLayer,
    x: list[Tensor],
    messages: Tensor,
    node_K: Int[Tensor, " K"],
    ptr_P: Int[Tensor, " P"],
    true_degree: bool,
) -> Change:
    """What the first layer gives at deleted nodes and their targets, less what it gives in the wild type.

    Args:
        stack: The relations.
        layer: The first layer.
        x: The whole cell's features before and after the layer, each [M, D].
        messages: The layer's messages there.
        node_K: Nodes that go, sorted and unique within a set [K].
        ptr_P: Pointers of the sets [B + 1].
        true_degree: Whether messages are divided by the degree that is left.
    """
    touched = _Touched(stack, node_K, ptr_P)
    node_C, keep_C = touched.node_C, touched.keep_C.to(x[0].dtype)
    fused = layer.additive and not true_degree
    sent = column_product(lambda: touched.columns, -x[0][node_K], layer.weight, len(stack), fused)
    y = messages[..., node_C, :] + sent
    scale_RC = touched.scale(stack, keep_C) if true_degree else None
    new_CD = layer.update(x[0][node_C], layer.scaled(y, scale_RC), keep_C)
    return Change(node_C, touched.ptr_P, new_CD - x[1][node_C], keep_C)


class _Touched:
    """The rows that deletions reach, and the columns of the deleted nodes over these rows."""

    def __init__(self, stack: RelationStack, node_K: Tensor, ptr_P: Tensor) -> None:
        n_sets, n_nodes, device = len(ptr_P) - 1, stack.n_nodes, node_K.device
        base_K = owner(ptr_P, len(node_K)) * n_nodes
        hit = torch.zeros(n_sets * n_nodes, dtype=torch.bool, device=device)
        hit[base_K + node_K] = True
        keys, ends, weights, last = [], [node_K.new_zeros(1)], [], 0
        for number in range(len(stack)):
            csr = stack.csr(number, transpose=True)
            edge, size_K, owner_E = out_edges(csr, node_K)
            keys.append(base_K[owner_E] + csr.indices[edge])
            weights.append(csr.weight[edge])
            ends.append(last + size_K.cumsum(0))
            last += len(edge)
            hit[keys[-1]] = True
        key_C = hit.nonzero()[:, 0]
        row = torch.empty(len(hit), dtype=torch.int32, device=device)
        row[key_C] = torch.arange(len(key_C), dtype=torch.int32, device=device)
        csr = CSR(torch.cat(ends).int(), torch.cat([row[key] for key in keys]), torch.cat(weights))
        self.columns = Columns(csr, len(key_C))
        self.node_C = key_C % n_nodes
        self.ptr_P = torch.searchsorted(key_C, torch.arange(n_sets + 1, device=device) * n_nodes)
        self.keep_C = torch.ones(len(key_C), device=device).index_fill(0, row[base_K + node_K].long(), 0.0)

    def scale(self, stack: RelationStack, keep_C: Tensor) -> Float[Tensor, "R C"]:
        """One over the degree that is left to each row, by relation."""
        csr = self.columns.csr
        degree_RC = stack.degree(keep_C.new_ones(stack.n_nodes))[:, self.node_C]
        per_relation = (len(csr.indptr) - 1) // len(stack)
        lost_RC = torch.zeros_like(degree_RC)
        for number in range(len(stack)):
            first, last = (int(csr.indptr[(number + i) * per_relation]) for i in (0, 1))
            lost_RC[number].index_add_(0, csr.indices[first:last].long(), csr.weight[first:last].abs().to(keep_C.dtype))
        return inverse(degree_RC - lost_RC)


def inverse(degree: Tensor) -> Tensor:
    """One over a sum of weights; 0 where nothing but rounding is left of it."""
    return torch.where(degree > 1e-6, 1 / degree.clamp(min=1e-6), 0)
