"""The perturbed cell computed from the wild type: only what a perturbation changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchcell.graph.cell_graph import CSR, owner
from torchcell.io.errors import InputError, near
from torchcell.nn.hgt import HGT
from torchcell.nn.ragged import segment_sum
from torchcell.nn.relations import Cell, Columns, RelationStack, column_product, out_edges, relational_product
from torchcell.screen.models.perturbed_cell_gnn.layers import RelationalLayer


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


BUDGET = 1e9
"""Bytes that the temporary tensors of a batch may take before they are computed again in the backward pass."""


def in_chunks(
    work: Callable[[Tensor, Tensor], Tensor],
    node_K: Int[Tensor, " K"],
    ptr_P: Int[Tensor, " P"],
    cost_B: Float[Tensor, " B"],
    chunk_bytes: float | None = None,
) -> Float[Tensor, "B D"]:
    """``work`` on all sets, or on one chunk of sets after the other.

    Args:
        work: Gives one row a set from members and pointers; each set's row must depend on that set alone.
        node_K: Members of all sets [K].
        ptr_P: Pointers [B + 1].
        cost_B: Estimated bytes of each set [B].
        chunk_bytes: Of one chunk, less than ``BUDGET`` where smaller chunks are faster.

    Returns:
        The rows of all sets [B, D].
    """
    chunks = list(_cut(cost_B, min(chunk_bytes or BUDGET, BUDGET)))
    if len(chunks) <= 1:
        return work(node_K, ptr_P)
    again, rows = torch.is_grad_enabled() and float(cost_B.sum()) > BUDGET, []
    for first, last in chunks:
        span = slice(int(ptr_P[first]), int(ptr_P[last]))
        arguments = node_K[span], ptr_P[first : last + 1] - ptr_P[first]
        rows.append(checkpoint(work, *arguments, use_reentrant=False) if again else work(*arguments))
    return torch.cat(rows)


def _cut(cost_B: Tensor, most: float) -> Iterator[tuple[int, int]]:
    """Chunks of sets that together cost no more than ``most`` bytes; one set at least."""
    done = torch.cat([cost_B.new_zeros(1), cost_B.double().cumsum(0)]).cpu()
    first = 0
    while first < len(cost_B):
        last = int(torch.searchsorted(done, done[first] + most, right=True)) - 1
        last = min(max(last, first + 1), len(cost_B))
        yield first, last
        first = last


STRATEGIES = ("auto", "tile", "hybrid", "delta")
KEPT_BYTES = 256e6
"""What the tiles of a batch may keep for the backward pass; beyond it they are computed again there."""
FEW_EDGES = 0.45
"""Share of all edges up to which slicing out columns is cheaper than a product with all of them (notes)."""

Layer = RelationalLayer | HGT


@dataclass(frozen=True, eq=False)
class WildType:
    """The unperturbed cell, layer by layer.

    Attributes:
        x: Input of each layer and output of the last, L + 1 of [M, D].
        messages: What each layer sends, see its ``messages``.
    """

    x: list[Tensor]
    messages: list[Any]


class PerturbedCell(nn.Module):
    """Layers over the relations of a cell, and strategies to run them on it with nodes missing.

    Args:
        stack: The relations.
        layers: Message-passing layers, first to last.
        kind_N: Type of each node, int64 [M].
        strategy: ``tile``, ``hybrid`` or ``delta``; ``auto`` chooses by depth and layers.
        true_degree: Divide messages by the degree among the nodes that are there; otherwise the stack's weights
            stay as they are when nodes go.

    Raises:
        InputError: A strategy that does not exist, or one that a layer's norm makes inexact.
    """

    def __init__(
        self,
        stack: RelationStack,
        layers: Sequence[Layer],
        kind_N: Int[Tensor, " N"],
        strategy: str = "auto",
        true_degree: bool = False,
    ) -> None:
        super().__init__()
        if strategy not in STRATEGIES:
            raise InputError(
                f"model.encoder.strategy={strategy!r}: choose one of {near(strategy, STRATEGIES) or list(STRATEGIES)}"
            )
        self.stack, self.layers, self.true_degree = stack, nn.ModuleList(layers), true_degree
        self.kind_N: Tensor
        self.out_degree: Tensor
        self.register_buffer("kind_N", kind_N, persistent=False)
        leaving = [stack.csr(number, transpose=True).indptr.diff() for number in range(len(stack))]
        self.register_buffer("out_degree", torch.stack(leaving).sum(0), persistent=False)
        self.mixes_nodes = mixing = next((layer.mixes_nodes for layer in layers if layer.mixes_nodes), "")
        if mixing and strategy in ("hybrid", "delta"):
            raise InputError(
                f"model.encoder.strategy={strategy} is not exact with {mixing}: it reads all nodes, so "
                "a deletion changes every row and not only those it reaches. "
                "Set model.encoder.norm=layer, or model.encoder.strategy=tile"
            )
        # From the third layer on everything has changed: columns pay in the second one only.
        best = "delta" if len(layers) <= 2 and not isinstance(layers[0], HGT) else "hybrid"
        self.strategy = strategy if strategy != "auto" else "tile" if mixing else best

    @property
    def steps(self) -> list[Layer]:
        """The layers, first to last."""
        return cast("list[Layer]", list(self.layers))

    @property
    def pools(self) -> bool:
        """Whether the sum over nodes of the last layer's change follows from its input's change alone."""
        last = self.steps[-1]
        return last.linear and last.additive and not self.true_degree

    # The wild type --------------------------------------------------------------------------------

    def cell(self, x_ND: Float[Tensor, "N D"], keep_N: Float[Tensor, " N"] | None = None) -> Cell:
        """The whole cell, or what is left of it, with numbers as precise as ``x_ND``."""
        pairs = [(self.stack.csr(number), self.stack.csr(number, True)) for number in range(len(self.stack))]
        if not self.true_degree:
            return Cell(pairs, self.kind_N, keep_N)
        there_N = torch.ones_like(x_ND[:, 0]) if keep_N is None else keep_N
        return Cell(pairs, self.kind_N, keep_N, inverse(self.stack.degree(there_N)))

    def wild_type(self, x_ND: Float[Tensor, "N D"]) -> WildType:
        """Run the layers on the whole cell, keeping what deltas start from."""
        cell, wild = self.cell(x_ND), WildType([x_ND], [])
        for layer in self.steps:
            wild.messages.append(layer.messages(wild.x[-1], cell))
            wild.x.append(layer.finish(wild.x[-1], wild.messages[-1], cell))
        return wild

    # The perturbed cell ---------------------------------------------------------------------------

    def lost(self, wild: WildType, node_K: Int[Tensor, " K"], ptr_P: Int[Tensor, " P"]) -> Float[Tensor, "B D"]:
        r"""Sum over all nodes of h(G) - h(G \ S), a missing node having h = 0.

        Args:
            wild: Of the same parameters.
            node_K: Nodes that go, sorted and unique within a set [K].
            ptr_P: Set b is ``node[ptr[b]:ptr[b + 1]]`` [B + 1].
        """
        if self.strategy == "tile" or isinstance(self.steps[0], HGT):
            return self._one_by_one(wild, node_K, ptr_P, None)
        # A row of marks over the nodes, and some 500 bytes an edge out of a deleted node.
        edges_B = segment_sum(self.out_degree[node_K][:, None].float(), ptr_P)[:, 0]
        return in_chunks(partial(self._by_change, wild), node_K, ptr_P, 8.0 * self.stack.n_nodes + 500 * edges_B)

    def _by_change(self, wild: WildType, node_K: Tensor, ptr_P: Tensor) -> Float[Tensor, "B D"]:
        """From what the first layer's output changed to."""
        first, last = self.steps[0], self.steps[-1]
        assert isinstance(first, RelationalLayer)
        change = first_change(self.stack, first, wild.x, wild.messages[0], node_K, ptr_P, self.true_degree)
        if len(self.layers) == 1:
            return -segment_sum(change.delta_CD, change.ptr_P)
        if self.strategy == "delta" and len(self.layers) == 2 and self.pools and isinstance(last, RelationalLayer):
            return pooled_change(self.stack, last, wild.x[-1], change, node_K, ptr_P)
        return self._one_by_one(wild, node_K, ptr_P, change)

    def _one_by_one(self, wild: WildType, node_K: Tensor, ptr_P: Tensor, change: Change | None) -> Float[Tensor, "B D"]:
        """Sample after sample on [M, D] tiles, which stay in the processor's cache."""
        ends, rows = ptr_P.tolist(), [] if change is None else change.ptr_P.tolist()
        kept = wild.x[0].element_size() * (len(ends) - 1) * wild.x[0].numel() * 3 * len(self.layers)
        again = torch.is_grad_enabled() and kept > KEPT_BYTES and not self.mixes_nodes  # running means count once
        lost = []
        for b in range(len(ends) - 1):
            part = change and change.part(rows[b], rows[b + 1])
            arguments = (wild, node_K[ends[b] : ends[b + 1]], part)
            lost.append(checkpoint(self._tile, *arguments, use_reentrant=False) if again else self._tile(*arguments))
        return torch.stack(lost) if lost else wild.x[-1].new_zeros(0, wild.x[-1].shape[1])

    def _tile(self, wild: WildType, removed: Tensor, change: Change | None) -> Float[Tensor, " D"]:
        return (wild.x[-1] - self.perturbed(wild, removed, change)).sum(0)

    def perturbed(
        self, wild: WildType, removed: Int[Tensor, " K"], change: Change | None = None
    ) -> Float[Tensor, "N D"]:
        """Features of all nodes of one perturbed cell; zeros at missing ones.

        Args:
            wild: The cell before.
            removed: Nodes that go [K].
            change: What is known of the first layer's output, if anything.
        """
        keep_N = torch.ones_like(wild.x[0][:, 0]).index_fill(0, removed, 0.0)
        cell = self.cell(keep_N[:, None], keep_N)
        layers = list(self.steps)
        if change is not None:
            x_ND = wild.x[1].index_add(0, change.node_C, change.delta_CD)
            layers.pop(0)
            if self.strategy == "delta" and isinstance(layers[0], RelationalLayer) and self._few(change.node_C):
                x_ND = self._by_columns(layers[0], wild, x_ND, change, cell)
                layers.pop(0)
        elif self.strategy != "tile" and isinstance(layers[0], HGT):
            row_C = torch.cat([removed, self.stack.columns(removed).csr.indices.long()]).unique()
            x_ND = wild.x[1].index_copy(0, row_C, layers[0].at(row_C, wild.x[0], wild.messages[0], cell))
            layers.pop(0)
        else:
            x_ND = wild.x[0] * keep_N[:, None]
        for layer in layers:
            x_ND = layer(x_ND, cell)
        return x_ND

    def _few(self, node_C: Tensor) -> bool:
        return int(self.out_degree[node_C].sum()) < FEW_EDGES * self.stack.n_edges

    def _by_columns(
        self, layer: RelationalLayer, wild: WildType, x_ND: Tensor, change: Change, cell: Cell
    ) -> Float[Tensor, "N D"]:
        """The second layer from the wild type's messages and those that the changed nodes send besides."""
        fused = layer.additive and cell.scale_RN is None
        columns = partial(self.stack.columns, change.node_C)
        sent = column_product(columns, change.delta_CD, layer.weight, len(self.stack), fused)
        return layer.finish(x_ND, wild.messages[1] + sent, cell)

    def extra_repr(self) -> str:
        """The strategy in use."""
        return f"strategy={self.strategy}, true_degree={self.true_degree}"
