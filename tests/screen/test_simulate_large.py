"""The synthetic cell: exact counts, heavy tails, the same bytes for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.network import Network
from torchcell.io.errors import InputError
from torchcell.screen.simulate_large import EDGES, edge_counts, synthetic_networks, synthetic_screen


def stored(networks: list[Network]) -> int:
    return sum(len(n.source) * (1 if n.directed else 2) for n in networks)


@pytest.mark.parametrize(
    ("n_genes", "n_relations", "n_edges"), [(60, 9, 2_001), (40, 3, 500), (12, 1, 7), (300, 5, 30_000)]
)
def test_a_graph_stores_exactly_the_edges_asked_for(n_genes, n_relations, n_edges):
    networks = synthetic_networks(n_genes, n_relations, n_edges, seed=1)
    graph = CellGraph.from_networks(networks)
    assert (len(networks), len(graph)) == (n_relations, n_genes)
    assert stored(networks) == sum(len(graph.csr(name).indices) for name in graph.relations) == n_edges
    assert not graph.dropped  # no self-loop, no edge twice
    assert [n.directed for n in networks].index(True) == n_relations // 2
    assert sum(n.directed for n in networks) == 1


def test_the_default_relations_have_the_documented_sizes():
    assert edge_counts(6607, 9, 2_518_374) == list(EDGES)
    assert sum(EDGES) == 2_518_374


def test_same_seed_same_bytes_and_another_seed_others():
    first, again, other = (synthetic_networks(50, 4, 800, seed) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        assert (a.source == b.source).all()
        assert (a.target == b.target).all()
        assert a.weight.tobytes() == b.weight.tobytes()
    assert (first[0].source != other[0].source).any()
    screens = [synthetic_screen(50, 200, seed) for seed in (3, 3, 4)]
    assert screens[0].gene.tobytes() == screens[1].gene.tobytes()
    assert screens[0].phenotype.tobytes() == screens[1].phenotype.tobytes()
    assert screens[0].gene.tobytes() != screens[2].gene.tobytes()


def test_degrees_have_a_heavy_tail_and_hubs_are_hubs_in_several_relations():
    graph = CellGraph.from_networks(synthetic_networks(2_000, 3, 60_000, seed=0))
    degree = np.stack([np.diff(graph.csr(name).indptr.numpy()) for name in graph.relations[:2]])
    assert degree[0].max() > 10 * np.median(degree[0])
    assert np.corrcoef(np.argsort(np.argsort(degree)))[0, 1] > 0.2


def test_the_screen_holds_pairs_and_a_tenth_of_triples_of_the_graphs_genes():
    screen = synthetic_screen(n_genes=40, n_sets=190)
    assert np.bincount(screen.sizes).tolist() == [0, 0, 171, 19]
    assert screen.validate() is screen  # no set twice, no gene twice in a set
    assert (screen.genes == synthetic_networks(40, 2, 300)[0].genes).all()
    assert set(screen.sizes[:40]) == {2, 3}  # mixed, not pairs first


@pytest.mark.parametrize("arguments", [(10, 9, 12), (10, 1, 80), (10, 0, 20), (2, 1, 1)])
def test_numbers_that_do_not_fit_each_other_are_refused(arguments):
    with pytest.raises(InputError):
        synthetic_networks(*arguments)


def test_more_sets_than_there_are_different_ones_are_refused():
    with pytest.raises(InputError, match="20 genes serve for 1 to 47 sets, not 100"):
        synthetic_screen(20, 100)
