"""A closure's node sets are PyG's k-hop sub-graphs; its cache is trusted only where it fits the graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.utils import k_hop_subgraph

from tests.graph.node_sets import lists, node_sets, ragged, random_graph, unified_edges
from torchcell.graph import neighborhood as module
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighborhood import Closure, closure, compute_bits, load_closure, unpack
from torchcell.io.errors import InputError


def of(graph: CellGraph, k: int) -> Closure:
    return Closure(torch.from_numpy(compute_bits(graph, k)), k, graph.hash)


def pyg_nodes(graph: CellGraph, members: list[int], k: int) -> list[int]:
    """Nodes within k hops over the edges of all relations, taken both ways."""
    edges = torch.cat([unified_edges(graph, relation) for relation in graph.relations], dim=1)
    edges = torch.cat([edges, edges.flip(0)], dim=1)
    return k_hop_subgraph(torch.tensor(members, dtype=torch.int64), k, edges, num_nodes=graph.n_nodes)[0].tolist()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 50), k=st.sampled_from([1, 2, 3]), sets=node_sets)
def test_node_sets_are_those_of_pyg_in_all_three_forms(seed, k, sets):
    graph = random_graph(seed)
    reach, (node, ptr) = of(graph, k), ragged(sets)
    expected = [sorted(pyg_nodes(graph, members, k)) if members else [] for members in sets]
    assert lists(*reach.ragged(node, ptr)) == expected
    mask = reach.nodes(node, ptr)
    assert mask.shape == (len(sets), graph.n_nodes)
    assert [row.nonzero().view(-1).tolist() for row in mask] == expected
    packed = reach.packed(node, ptr)
    assert packed.shape == (len(sets), -(-graph.n_nodes // 8))
    assert torch.equal(unpack(packed, graph.n_nodes), mask)


@pytest.mark.parametrize("n_chunk_bytes", [1, 100])
def test_the_size_of_chunks_changes_nothing(monkeypatch, n_chunk_bytes):
    whole = [compute_bits(random_graph(3), k) for k in (1, 2, 3)]
    monkeypatch.setattr(module, "CHUNK_BYTES", n_chunk_bytes)
    for k, bits in enumerate(whole, 1):
        assert (compute_bits(random_graph(3), k) == bits).all()


def test_no_bit_stands_beyond_the_last_node():
    graph = random_graph(0)
    assert not np.unpackbits(compute_bits(graph, 3), axis=1, bitorder="little")[:, graph.n_nodes :].any()


def test_the_closure_is_no_part_of_a_checkpoint():
    assert not of(random_graph(0), 1).state_dict()


@pytest.mark.parametrize("k", [0, 4, -1, 1.0, "1", True, None])
def test_other_numbers_of_hops_are_refused_with_those_that_work(k):
    with pytest.raises(InputError, match="k must be one of 1, 2, 3 hops"):
        closure(random_graph(0), k)


def test_a_second_call_reads_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path))
    graph = random_graph(1)
    first = closure(graph, 2)
    files = [path.name for path in (tmp_path / "closures").glob("*.npz")]
    assert files == [f"{graph.hash[:16]}-k2.npz"]
    monkeypatch.setattr(module, "compute_bits", lambda graph, k: pytest.fail("computed again"))
    assert torch.equal(closure(graph, 2).bits, first.bits)


def test_a_file_that_is_damaged_or_of_something_else_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path))
    graph, other = random_graph(1), random_graph(2)
    closure(graph, 1)
    path = tmp_path / "closures" / f"{graph.hash[:16]}-k1.npz"
    with pytest.raises(InputError, match="its graph is .*; delete it, then run again"):
        load_closure(path, other, 1)
    with pytest.raises(InputError, match=f"{path.name} is no closure of this graph for k = 2: its k is 1, not 2"):
        load_closure(path, graph, 2)
    bits = np.load(path)["bits"]
    for changed, said in ((bits[:-1], "its shape is"), (bits.astype(np.int64), "it holds int64")):
        np.savez(path, bits=changed, k=1, hash=graph.hash)
        with pytest.raises(InputError, match=f"{said}.*delete it, then run again"):
            load_closure(path, graph, 1)
    np.savez(path, bits=bits)
    with pytest.raises(InputError, match="damaged or no closure"):
        load_closure(path, graph, 1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{path.name} is damaged.*delete it"):
        load_closure(path, graph, 1)
    assert np.array_equal(closure(graph, 1).bits.numpy(), bits), "made again"
    with pytest.raises(InputError, match="no such file"):
        load_closure(tmp_path / "none.npz", graph, 1)
