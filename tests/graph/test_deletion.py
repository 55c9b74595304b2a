"""Which nodes a deletion takes along, against the rules evaluated one by one."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graph.test_gene_rule import GENES, holds, nested
from torchcell.graph.cell_graph import CellGraph, deleted_nodes
from torchcell.graph.network import GeneRules


def cell(rules: dict[str, str] | None, genes: list[str] = GENES) -> CellGraph:
    """Reactions r0, r1, ... that every gene catalyses."""
    ring = sp.csr_matrix(np.roll(np.eye(len(genes)), 1, axis=1))
    if rules is None:
        return CellGraph(genes, {"ring": ring}, directed=["ring"])
    return CellGraph(
        genes,
        {"ring": ring, "catalyses": sp.csr_matrix(np.ones((len(rules), len(genes))))},
        directed=["ring", "catalyses"],
        nodes={"reaction": list(rules)},
        ends={"catalyses": ("gene", "reaction")},
        rules=GeneRules.parse("reaction", rules),
    )


def split(node: torch.Tensor, ptr: torch.Tensor) -> list[list[int]]:
    return [part.tolist() for part in node.tensor_split(ptr[1:-1])]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(nested(), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=4),
)
def test_a_reaction_goes_exactly_where_its_rule_is_false(rules, sets):
    graph = cell({f"r{i}": rule for i, rule in enumerate(rules)})
    gene = torch.tensor([g for members in sets for g in members], dtype=torch.long)
    ptr = torch.tensor([0, *np.cumsum([len(members) for members in sets])])
    found = split(*deleted_nodes(graph, gene, ptr))
    for members, nodes in zip(sets, found, strict=True):
        left = {name for i, name in enumerate(GENES) if i not in members}
        lost = [5 + i for i, rule in enumerate(rules) if not holds(rule, left)]
        assert nodes == sorted({*members, *lost})


def test_a_cell_without_rules_loses_its_genes_alone_sorted_and_once():
    node, ptr = deleted_nodes(cell(None), torch.tensor([3, 1, 3, 0]), torch.tensor([0, 3, 3, 4]))
    assert split(node, ptr) == [[1, 3], [], [0]]


def test_a_gene_that_the_cell_does_not_know_is_never_deleted():
    graph = cell({"r0": "A and Z", "r1": "A or Z"})
    assert split(*deleted_nodes(graph, torch.tensor([0]), torch.tensor([0, 1]))) == [[0, 5]]


def test_a_number_of_minus_one_is_no_gene_and_takes_nothing_along():
    """It was once taken for the last node of the set before."""
    graph = cell({"r0": "A and B", "r1": "E"})
    gene = torch.from_numpy(graph.index(["A", "unknown", "unknown"]))
    assert split(*deleted_nodes(graph, gene, torch.tensor([0, 1, 2, 3]))) == [[0, 5], [], []]
