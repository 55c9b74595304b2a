"""The graph holds each edge once per direction, knows its transpose, and survives a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchcell.data.errors import InputError
from torchcell.data.network import Network
from torchcell.graph.cell_graph import CellGraph


def network(edges: list[tuple[str, str, float]], directed: bool = False, name: str = "net") -> Network:
    source, target, weight = zip(*edges, strict=True)
    return Network(name, np.array(source), np.array(target), np.array(weight, dtype=np.float32), directed)


def dense(graph: CellGraph, relation: str = "net", transpose: bool = False) -> np.ndarray:
    csr = graph.csr(relation, transpose)
    size = (len(graph), len(graph))
    return torch.sparse_csr_tensor(csr.indptr, csr.indices, csr.weight, size=size).to_dense().numpy()


def test_undirected_edges_stand_in_both_directions_however_they_were_written():
    once = CellGraph.from_networks([network([("a", "b", 1), ("b", "c", 2)])])
    both = CellGraph.from_networks([network([("a", "b", 1), ("b", "a", 1), ("c", "b", 2), ("b", "c", 2)])])
    assert np.array_equal(dense(once), dense(both))
    assert np.array_equal(dense(once), dense(once).T)
    assert once.n_edges("net") == 2
    assert once.hash == both.hash


def test_directed_edges_gather_at_their_target():
    graph = CellGraph.from_networks([network([("a", "b", 3)], directed=True)])
    assert dense(graph)[1, 0] == 3
    assert np.count_nonzero(dense(graph)) == 1
    assert np.array_equal(dense(graph, transpose=True), dense(graph).T)


def test_of_duplicate_edges_the_larger_weight_stays_and_self_loops_are_counted():
    graph = CellGraph.from_networks([network([("a", "b", 1), ("b", "a", 5), ("a", "a", 9)])])
    assert dense(graph).tolist() == [[0, 5], [5, 0]]
    assert graph.lost == {"net: self-loops": 1}


def test_edges_to_genes_outside_the_list_are_left_out_and_counted():
    graph = CellGraph.from_networks([network([("a", "b", 1), ("a", "x", 1)])], genes=["b", "a"])
    assert graph.genes.tolist() == ["b", "a"]
    assert graph.lost == {"net: edges to unknown genes": 1}


def test_indices_are_int32_and_no_buffer_enters_the_state_dict():
    graph = CellGraph.from_networks([network([("a", "b", 1)])])
    assert graph.csr("net").indices.dtype == torch.int32
    assert graph.state_dict() == {}
    assert len(list(graph.buffers())) == 6


def test_plain_form_round_trips_and_notices_a_change():
    graph = CellGraph.from_networks([network([("a", "b", 1), ("b", "c", 2)], directed=True)])
    plain = graph.to_plain()
    assert CellGraph.from_plain(plain).hash == graph.hash
    plain["csr"]["net"][2][0] = 7
    with pytest.raises(InputError, match="it was changed"):
        CellGraph.from_plain(plain)


def test_the_hash_depends_on_genes_edges_and_direction():
    a = CellGraph.from_networks([network([("a", "b", 1), ("b", "a", 1)], directed=True)])
    b = CellGraph.from_networks([network([("a", "b", 1)], directed=False)])
    c = CellGraph.from_networks([network([("a", "c", 1)], directed=False)])
    assert len({a.hash, b.hash, c.hash}) == 3


def test_unknown_relation_and_empty_relation_are_refused():
    net = network([("a", "b", 1)], name="physical")
    with pytest.raises(InputError, match="no network named 'phsical'.*physical"):
        CellGraph.from_networks([net], relations=["phsical"])
    with pytest.raises(InputError, match="physical has no edges"):
        CellGraph.from_networks([net], genes=["x", "y"])
    with pytest.raises(InputError, match="no relation 'psical'"):
        CellGraph.from_networks([net]).csr("psical")
