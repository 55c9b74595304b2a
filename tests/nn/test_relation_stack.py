"""The stack of relations: means, columns, degrees, and what a device without SciPy does instead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.screen.offset_cells import edges
from tests.screen.test_perturbed_cell import random_graph
from torchcell.graph.cell_graph import CSR, CellGraph
from torchcell.nn.relations import RelationStack, reversed_csr


def dense(csr: CSR, n_columns: int) -> torch.Tensor:
    rows = len(csr.indptr) - 1
    return torch.sparse_csr_tensor(csr.indptr, csr.indices, csr.weight, size=(rows, n_columns)).to_dense()


@pytest.fixture(params=[False, True], ids=["genes", "hetero"])
def graph(request) -> CellGraph:
    return random_graph(np.random.default_rng(3), 10, request.param)


def test_matrices_are_those_of_the_graph_over_all_nodes(graph):
    stack = RelationStack(graph, graph.relations)
    for number, relation in enumerate(graph.relations):
        source, target, weight = edges(graph, relation)
        wanted = torch.zeros(graph.n_nodes, graph.n_nodes).index_put((target, source), weight.float())
        assert torch.equal(dense(stack.csr(number), graph.n_nodes), wanted)
        assert torch.equal(dense(stack.csr(number, True), graph.n_nodes), wanted.T)


def test_a_mean_stack_has_rows_that_add_up_to_one_or_to_nothing(graph):
    stack = RelationStack(graph, graph.relations, mean=True)
    for number in range(len(stack)):
        total = dense(stack.csr(number), graph.n_nodes).sum(1)
        assert torch.all(torch.isclose(total, torch.ones(())) | (total == 0))
        torch.testing.assert_close(dense(stack.csr(number, True), graph.n_nodes).sum(0), total)


def test_columns_equal_those_of_the_matrices_on_every_device(graph):
    stack, node = RelationStack(graph, graph.relations), torch.tensor([0, 3, 9])
    wanted = torch.cat([dense(stack.csr(r), graph.n_nodes)[:, node].T for r in range(len(stack))])
    for columns in (stack.columns(node), stack._gathered(node)):
        assert torch.equal(dense(columns.csr, graph.n_nodes), wanted)


def test_a_transpose_by_sorting_equals_that_of_scipy(graph):
    csr = RelationStack(graph, graph.relations).columns(torch.tensor([0, 1, 2, 5])).csr
    for ours, theirs in zip(
        reversed_csr(csr, graph.n_nodes, by_sorting=True), reversed_csr(csr, graph.n_nodes), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_edges_within_a_mask_are_counted(graph):
    stack, inside = RelationStack(graph, graph.relations), torch.rand(graph.n_nodes) < 0.5
    wanted = sum(int((dense(stack.csr(r), graph.n_nodes)[inside][:, inside] != 0).sum()) for r in range(len(stack)))
    assert stack.edges_within(inside) == wanted
