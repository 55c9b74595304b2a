"""Lists of neighbors for sparse attention: networks first, then correlation over control cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from torchcell.cells.gene_neighbors import GeneNeighbors
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.simulate import simulate_cells
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.network import Network
from torchcell.io.errors import InputError


@pytest.fixture(scope="module")
def train() -> Pseudobulk:
    """Controls in which gene 0 goes along with 1, against 2 and a little with 3, and gene 5 never changes."""
    record = Pseudobulk.from_cells(simulate_cells().cells.lognorm(), ["cell_line"])
    X, rng = record.cells.X.toarray(), np.random.default_rng(0)
    X[:, 1] = X[:, 0] + 0.1 * rng.random(len(X))
    X[:, 2] = 9 - X[:, 0] + 0.3 * rng.random(len(X))
    X[:, 3] = X[:, 0] + 2.0 * rng.random(len(X))
    X[:, 5] = 1.5
    return replace(record, cells=replace(record.cells, X=X, counts=None))


def graph(train: Pseudobulk, edges: list[tuple[int, int]], name: str = "a", directed: bool = False) -> CellGraph:
    source, target = (train.genes[[edge[i] for edge in edges]] for i in range(2))
    network = Network(name, source, target, np.ones(len(edges), dtype=np.float32), directed)
    return CellGraph.from_networks([network])  # genes in another order than the record's, and fewer


def test_without_networks_the_most_correlated_come_first_whatever_the_sign(train):
    lists = GeneNeighbors(k=3)(train)
    assert lists.shape == (len(train.genes), 3)
    assert lists[0].tolist() == [1, 2, 3]
    correlation = np.abs(np.corrcoef(np.delete(train.cells.X[train.control_cells()], 5, axis=1).T))
    np.fill_diagonal(correlation, 0)
    assert lists[1, 0] == 0 == np.argsort(-correlation)[1, 0]


def test_sparse_cells_are_made_dense_a_few_at_a_time(train, monkeypatch):
    """All control cells of training were dense at once."""
    held = replace(train, cells=replace(train.cells, X=sparse.csr_matrix(train.cells.X)))
    whole = np.abs(np.corrcoef(np.delete(train.cells.X[train.control_cells()], 5, axis=1).T)) - 2 * np.eye(39)
    expected = np.delete(np.arange(40), 5)[np.argsort(-whole, axis=1)[:, :4]]
    seen, plain = [], sparse.csr_matrix.toarray
    monkeypatch.setattr(sparse.csr_matrix, "toarray", lambda self: seen.append(self.shape[0]) or plain(self))
    monkeypatch.setattr("torchcell.cells.gene_neighbors.CELLS", 50)
    monkeypatch.setattr("torchcell.cells.record.CHUNK", 50)
    lists = GeneNeighbors(k=4)(held)
    np.testing.assert_array_equal(np.delete(lists, 5, axis=0), expected)
    assert sum(rows == 50 for rows in seen) == len(train.control_cells()) // 50
    assert max(seen) <= 50


def test_a_gene_that_never_changes_has_nobody_and_is_nobodys_neighbor(train):
    lists = GeneNeighbors(k=4)(train)
    assert (lists[5] == -1).all()
    assert not (lists == 5).any()
    assert not (lists == np.arange(len(lists))[:, None]).any()


def test_neighbors_in_a_network_take_the_first_places_in_both_directions(train):
    edges = [(0, 7), (8, 0), (0, 1), (0, 9)]
    wanted = GeneNeighbors(k=4, correlated=2)(train, graph(train, edges, directed=True))
    assert wanted[0, 0] == 1  # of four in the network, the two that go along most
    assert wanted[0, 1] in (7, 8, 9)
    assert wanted[0, 2:].tolist() == [2, 3]
    assert wanted[7, 0] == 0
    assert all(len(set(row)) == 4 for row in wanted[[0, 7]].tolist())


def test_networks_alone_end_early(train):
    lists = GeneNeighbors(k=3, correlated=None)(train, graph(train, [(0, 7), (0, 8)]))
    assert sorted(lists[0].tolist()) == [-1, 7, 8]
    assert lists[7].tolist() == [0, -1, -1]
    assert (lists[4] == -1).all()


def test_genes_found_by_name_and_relations_by_choice(train):
    both = CellGraph.from_networks(
        [
            Network("a", train.genes[[0]], train.genes[[7]], np.ones(1, dtype=np.float32), False),
            Network("b", train.genes[[0]], np.array(["unmeasured"]), np.ones(1, dtype=np.float32), False),
        ]
    )
    assert GeneNeighbors(k=2, correlated=None)(train, both)[0].tolist() == [7, -1]
    assert (GeneNeighbors(k=2, correlated=None, relations=["b"])(train, both) == -1).all()
    with pytest.raises(InputError, match="no relation 'aa'"):
        GeneNeighbors(relations=["aa"])(train, both)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"k": 0}, "k=0 must be 1 or more"),
        ({"k": 2, "correlated": 3}, "correlated=3 0 to k"),
        ({"correlated": None}, "needs networks"),
        ({"relations": ["a"]}, "there is no graph"),
    ],
)
def test_choices_that_do_not_fit_are_refused(train, made, said):
    with pytest.raises(InputError, match=said):
        GeneNeighbors(**made)(train)
