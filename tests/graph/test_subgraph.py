"""Induced sub-graphs equal PyG's ``subgraph`` sample by sample, in edges, weights and numbering."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.utils import k_hop_subgraph, subgraph

from tests.graph.node_sets import TYPES, node_sets, ragged, random_graph, unified_edges
from torchcell.graph import neighborhood as module
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighborhood import Closure, Subgraph, compute_bits, induced
from torchcell.io.errors import InputError


def pyg(graph: CellGraph, relation: str, nodes: list[int], shift: int) -> dict[tuple[int, int], float]:
    """Relabeled edges of one sample, shifted by the rows before it: (source, target) -> weight."""
    edges, weight = unified_edges(graph, relation), torch.from_numpy(graph.scipy(relation).tocoo().data)
    found, kept = subgraph(torch.tensor(nodes, dtype=torch.int64), edges, weight, True, graph.n_nodes)
    return as_dict(found + shift, kept)


def as_dict(edge_index: Tensor, weight: Tensor) -> dict[tuple[int, int], float]:
    pairs = map(tuple, edge_index.T.tolist())
    return dict(zip(pairs, weight.tolist(), strict=True))


def assert_equal_to_pyg(graph: CellGraph, sub: Subgraph, sets: list[list[int]]) -> None:
    for relation in graph.relations:
        expected: dict[tuple[int, int], float] = {}
        for i, nodes in enumerate(sets):
            expected |= pyg(graph, relation, nodes, int(sub.ptr[i])) if nodes else {}
        csr, back = sub.csr(relation), sub.csr(relation, transpose=True)
        edges = sub.edge_index(relation)
        assert as_dict(edges, csr.weight) == expected
        assert len(csr.indices) == len(back.indices) == len(expected)
        rows = torch.repeat_interleave(torch.arange(len(sub.node)), back.indptr.diff())
        assert as_dict(torch.stack([rows, back.indices.long()]), back.weight) == expected
        for matrix in (csr, back):
            assert [part.dtype for part in matrix] == [torch.int32, torch.int32, torch.float32]
            assert len(matrix.indptr) == len(sub.node) + 1
            owner = torch.repeat_interleave(torch.arange(len(sub.node)), matrix.indptr.diff())
            assert bool(((owner * len(sub.node) + matrix.indices).diff() > 0).all()), "sorted within a row"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 50), sets=node_sets, chunk_bytes=st.sampled_from([1, 4_000, 2**24]))
def test_edges_weights_and_numbering_are_those_of_pyg_however_the_samples_are_cut(seed, sets, chunk_bytes):
    graph, sets = random_graph(seed), [sorted(nodes) for nodes in sets]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", chunk_bytes)
        sub = induced(graph, *ragged(sets))
    assert_equal_to_pyg(graph, sub, sets)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 50), k=st.sampled_from([1, 2]), sets=node_sets)
def test_a_neighborhood_with_its_edges_is_pygs_k_hop_subgraph(seed, k, sets):
    """The whole way from perturbed genes to relabeled edges and perturbed rows, on the union of all relations."""
    graph = random_graph(seed)
    node, ptr = ragged(sets)
    sub = induced(graph, *Closure(torch.from_numpy(compute_bits(graph, k)), k, graph.hash).ragged(node, ptr))
    edges = torch.cat([unified_edges(graph, relation) for relation in graph.relations], dim=1)
    edges = torch.cat([edges, edges.flip(0)], dim=1).unique(dim=1)
    owner = torch.repeat_interleave(torch.arange(len(sets)), ptr.diff())
    rows = sub.position(owner, node)
    ours = [sub.edge_index(relation) for relation in graph.relations]
    both = torch.cat([*ours, *(pair.flip(0) for pair in ours)], dim=1).unique(dim=1)
    for i, members in enumerate(sets):
        first, last = int(sub.ptr[i]), int(sub.ptr[i + 1])
        if not members:
            assert first == last
            continue
        seeds = torch.tensor(members, dtype=torch.int64)
        nodes, relabeled, mapping, _ = k_hop_subgraph(seeds, k, edges, True, graph.n_nodes)
        assert sub.node[first:last].tolist() == nodes.tolist()
        assert rows[owner == i].tolist() == (mapping + first).tolist()
        mine = both[:, (both[1] >= first) & (both[1] < last)] - first
        assert {tuple(p) for p in mine.T.tolist()} == {tuple(p) for p in relabeled.T.tolist()}


def test_all_nodes_give_the_whole_graph_and_none_give_nothing():
    graph = random_graph(4)
    everything = list(range(graph.n_nodes))
    sub = induced(graph, *ragged([everything, [], everything]))
    for relation in graph.relations:
        assert len(sub.csr(relation).indices) == 2 * graph.scipy(relation).nnz
    nothing = induced(graph, *ragged([]))
    assert [len(nothing.csr(relation).indptr) for relation in graph.relations] == [1] * len(graph.relations)
    assert nothing.position(torch.tensor([0]), torch.tensor([0])).tolist() == [-1]


def test_an_undirected_relation_shares_its_two_matrices_and_a_directed_one_does_not():
    graph = random_graph(0)
    sub = induced(graph, *ragged([list(range(graph.n_nodes))]))
    assert sub.csr("physical").indices is sub.csr("physical", transpose=True).indices
    assert sub.csr("regulatory").indices is not sub.csr("regulatory", transpose=True).indices


def test_a_node_outside_its_sample_has_no_row():
    graph = random_graph(0)
    last = graph.n_nodes - 1
    sub = induced(graph, *ragged([[3, last], [0, 4]]))
    owner = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2])
    node = torch.tensor([3, last, 4, 4, 3, -1, last + 1, 0])
    assert sub.position(owner, node).tolist() == [0, 1, -1, 3, -1, -1, -1, -1]


def test_a_graph_never_gets_the_matrices_of_one_that_stood_in_its_place():
    """Stacked matrices are kept as long as their graph: an id that is used again must not find them."""
    for seed in range(3):
        graph = random_graph(seed)
        assert_equal_to_pyg(graph, induced(graph, *ragged([[0, 1, 12]])), [[0, 1, 12]])


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ([[0, 1], [3, 2]], "nodes of set 1 don't rise"),
        ([[4, 4]], "nodes of set 0 don't rise"),
        ([[0, sum(TYPES.values())]], "the graph has 0..20"),
        ([[-1, 0]], "name nodes -1..0"),
    ],
)
def test_sets_that_are_no_rising_nodes_of_the_graph_are_refused(sets, said):
    with pytest.raises(InputError, match=said):
        induced(random_graph(0), *ragged(sets))


def test_an_unknown_relation_and_a_pointer_that_does_not_fit_are_refused():
    graph = random_graph(0)
    with pytest.raises(InputError, match="no relation 'fysical'; the nearest are \\['physical'\\]"):
        induced(graph, *ragged([[0]])).csr("fysical")
    with pytest.raises(InputError, match="ptr must run from 0 to the number of nodes, 2, not from 0 to 1"):
        induced(graph, torch.tensor([0, 1]), torch.tensor([0, 1]))


def test_weights_stand_with_their_edges():
    graph = random_graph(7)
    sub = induced(graph, *ragged([list(range(graph.n_nodes))]))
    csr, whole = sub.csr("physical"), graph.csr("physical")
    n = graph.n_nodes
    mine = torch.sparse_csr_tensor(csr.indptr, csr.indices, csr.weight, size=(n, n)).to_dense()[
        : len(graph), : len(graph)
    ]
    theirs = torch.sparse_csr_tensor(*whole, size=(len(graph), len(graph))).to_dense()
    assert np.array_equal(mine.numpy(), theirs.numpy())
