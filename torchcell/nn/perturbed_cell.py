r"""F(G) - F(G \ S): what a cell loses when nodes go, summed over its nodes, for many sets S over one graph G.

Layers act on the cell without the nodes of S: these are zero at the input and output of every layer. All ways
give the same numbers (REPRESENTATIONS):

- ``tile``: all layers on all nodes, one sample at a time, on the shared CSR;
- ``hybrid``: the first layer only at the nodes that S touches, the others as tiles;
- ``delta``: every layer by what changed. In the first layer these are a few rows of all samples at once; later the
  columns of A that changed, one sample at a time. A linear last layer needs no columns either: its sum over the
  nodes comes from column sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchcell.data.errors import InputError, near
from torchcell.nn.first_change import Change, first_change, inverse
from torchcell.nn.hgt import HGT
from torchcell.nn.pooled_change import pooled_change
from torchcell.nn.ragged import segment_sum
from torchcell.nn.relation_stack import RelationStack
from torchcell.nn.relational_layer import RelationalLayer
from torchcell.nn.relational_product import Cell, column_product
from torchcell.nn.runs import in_runs

WAYS = ("auto", "tile", "hybrid", "delta")
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
    """Layers over the relations of a cell, and the ways to run them on it with nodes missing.

    Args:
        stack: The relations.
        layers: Message-passing layers, first to last.
        kind_N: Type of each node, int64 [M].
        way: ``tile``, ``hybrid`` or ``delta``; ``auto`` chooses by depth and layers.
        true_degree: Divide messages by the degree among the nodes that are there; otherwise the stack's weights
            stay as they are when nodes go.

    Raises:
        InputError: A way that does not exist, or one that a layer's norm makes inexact.
    """

    def __init__(
        self,
        stack: RelationStack,
        layers: Sequence[Layer],
        kind_N: Int[Tensor, " N"],
        way: str = "auto",
        true_degree: bool = False,
    ) -> None:
        super().__init__()
        if way not in WAYS:
            raise InputError(f"computation={way!r}: choose one of {near(way, WAYS) or list(WAYS)}")
        self.stack, self.layers, self.true_degree = stack, nn.ModuleList(layers), true_degree
        self.kind_N: Tensor
        self.out_degree: Tensor
        self.register_buffer("kind_N", kind_N, persistent=False)
        leaving = [stack.csr(number, transpose=True).indptr.diff() for number in range(len(stack))]
        self.register_buffer("out_degree", torch.stack(leaving).sum(0), persistent=False)
        self.mixes_nodes = mixing = next((layer.mixes_nodes for layer in layers if layer.mixes_nodes), "")
        if mixing and way in ("hybrid", "delta"):
            raise InputError(
                f"computation={way} is not exact with {mixing}: it reads all nodes, so a deletion changes every row "
                "and not only those it reaches. Set norm=layer, or computation=tile"
            )
        # From the third layer on everything has changed: columns pay in the second one only.
        best = "delta" if len(layers) <= 2 and not isinstance(layers[0], HGT) else "hybrid"
        self.way = way if way != "auto" else "tile" if mixing else best

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
        if self.way == "tile" or isinstance(self.steps[0], HGT):
            return self._one_by_one(wild, node_K, ptr_P, None)
        # A row of marks over the nodes, and some 500 bytes an edge out of a deleted node.
        edges_B = segment_sum(self.out_degree[node_K][:, None].float(), ptr_P)[:, 0]
        return in_runs(partial(self._by_change, wild), node_K, ptr_P, 8.0 * self.stack.n_nodes + 500 * edges_B)

    def _by_change(self, wild: WildType, node_K: Tensor, ptr_P: Tensor) -> Float[Tensor, "B D"]:
        """From what the first layer's output changed to."""
        first, last = self.steps[0], self.steps[-1]
        assert isinstance(first, RelationalLayer)
        change = first_change(self.stack, first, wild.x, wild.messages[0], node_K, ptr_P, self.true_degree)
        if len(self.layers) == 1:
            return -segment_sum(change.delta_CD, change.ptr_P)
        if self.way == "delta" and len(self.layers) == 2 and self.pools and isinstance(last, RelationalLayer):
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
            if self.way == "delta" and isinstance(layers[0], RelationalLayer) and self._few(change.node_C):
                x_ND = self._by_columns(layers[0], wild, x_ND, change, cell)
                layers.pop(0)
        elif self.way != "tile" and isinstance(layers[0], HGT):
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
        """The way in use."""
        return f"way={self.way}, true_degree={self.true_degree}"
