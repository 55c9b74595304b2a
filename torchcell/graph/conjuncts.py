"""``Conjuncts``: gene rules as tensors on the device, asked by which genes are deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from torchcell.data.errors import InputError, some
from torchcell.data.gene_rule import GeneRules
from torchcell.graph.ranges import expand

if TYPE_CHECKING:
    from torchcell.graph.cell_graph import CellGraph


class Conjuncts(nn.Module):
    """Gene -> the sets of genes that need it -> the node that lives while one of its sets is whole.

    Args:
        rules: By name. A gene that the graph does not know is never deleted.
        graph: Gives genes and nodes their numbers.

    Raises:
        InputError: A rule for a node that the graph does not hold.
    """

    def __init__(self, rules: GeneRules, graph: CellGraph) -> None:
        super().__init__()
        if rules.kind not in graph.node_types:
            raise InputError(
                f"the gene rules are for {rules.kind}s, but no relation of the graph names any: add such a relation, "
                "or set the graph's rules to null"
            )
        position = {name: i for i, name in enumerate(graph.names(rules.kind).tolist())}
        unknown = [name for name in rules.target.tolist() if name not in position]
        if unknown:
            raise InputError(f"gene rules for {rules.kind}s that no relation of the graph names: {some(unknown)}")
        node = graph.span(rules.kind).start + np.array(
            [position[name] for name in rules.target.tolist()], dtype=np.int64
        )
        gene = graph.index(rules.gene.tolist())
        conjunct = np.repeat(np.arange(len(rules.owner)), np.diff(rules.ptr))[gene >= 0]
        order = np.argsort(gene[gene >= 0], kind="stable")
        count = np.bincount(gene[gene >= 0], minlength=len(graph))
        self.node: Tensor
        self.needed: Tensor
        self.conjunct: Tensor
        self.ptr: Tensor
        tensors = {
            "ptr": np.concatenate([[0], count.cumsum()]),  # gene -> its conjuncts
            "conjunct": conjunct[order],
            "node": node[rules.owner],  # of each conjunct
            "needed": np.bincount(node[rules.owner], minlength=graph.n_nodes),  # conjuncts of each node
        }
        for name, values in tensors.items():
            self.register_buffer(name, torch.from_numpy(values.astype(np.int64)), persistent=False)

    def lost(self, owner_K: Tensor, gene_K: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes none of whose conjuncts is whole.

        Args:
            owner_K: Set of each deleted gene, int64 [K].
            gene_K: The genes, each once a set [K].

        Returns:
            Set and node of each loss, int64.
        """
        start, size = self.ptr[gene_K], self.ptr[gene_K + 1] - self.ptr[gene_K]
        place, member = expand(start, size)
        broken = self.conjunct[place]
        key = (owner_K[member] * len(self.node) + broken).unique()
        owner, node = key // max(len(self.node), 1), self.node[key % max(len(self.node), 1)]
        key, count = (owner * len(self.needed) + node).unique(return_counts=True)
        key = key[count == self.needed[key % len(self.needed)]]
        return key // len(self.needed), key % len(self.needed)
