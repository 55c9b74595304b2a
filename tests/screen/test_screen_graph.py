"""A screen meets a network that lacks some of its genes, names them otherwise, or is far larger than the screen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.network import Network
from torchcell.io.errors import InputError
from torchcell.screen.datamodule import PerturbationDataModule
from torchcell.screen.screen_graph import joined

RANDOM = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}
HELD_OUT = RANDOM | {"method": "held_out_genes"}


def without(ring: list[Network], *genes: str) -> CellGraph:
    """The networks without the named genes."""
    cut = []
    for network in ring:
        kept = ~np.isin(network.source, genes) & ~np.isin(network.target, genes)
        cut.append(
            dataclasses.replace(
                network, source=network.source[kept], target=network.target[kept], weight=network.weight[kept]
            )
        )
    return CellGraph.from_networks(cut)


def test_a_gene_that_the_network_lacks_is_a_node_without_an_edge_and_counted(pairs, ring):
    graph = without(ring, "A01", "A02")
    module = PerturbationDataModule(pairs, RANDOM, graph, unknown_genes="isolate")
    assert module.dropped["genes without an edge in the network"] == 2
    assert set(pairs.genes) <= set(module.graph.genes)
    position = int(module.graph.index(["A01"])[0])
    assert not module.graph.scipy("ring")[position].nnz
    assert len(module.record_whole) == len(pairs), "no sample is left out"
    with pytest.raises(InputError, match="2 gene"):
        PerturbationDataModule(pairs, RANDOM, graph, unknown_genes="error")


def test_a_network_in_another_language_is_one_error_with_names_of_either_side(pairs, ring):
    names = {gene: f"ENSG{i:03d}" for i, gene in enumerate(sorted(set(ring[0].source)))}
    graph = CellGraph.from_networks(ring).renamed(names)
    with pytest.raises(InputError) as said:
        PerturbationDataModule(pairs, RANDOM, graph, unknown_genes="isolate")
    text = str(said.value)
    assert "80 of the 80 genes of toy are not among the 80 of the network" in text
    assert "'A00', 'A01'" in text
    assert "'ENSG000'" in text
    assert "data.aliases=FILE" in text


def test_an_alias_table_makes_the_two_meet_under_the_names_of_the_screen(pairs, ring, tmp_path):
    names = {gene: f"ENSG{i:03d}" for i, gene in enumerate(sorted(set(ring[0].source)))}
    graph = CellGraph.from_networks(ring).renamed(names)
    table = tmp_path / "aliases.csv"
    table.write_text("alias,gene\n" + "".join(f"{alias};also-{alias},{gene}\n" for alias, gene in names.items()))
    module = PerturbationDataModule(pairs, RANDOM, graph, unknown_genes="isolate", aliases=str(table))
    assert module.dropped["genes that the network knows by another name"] == 80
    assert sorted(module.graph.genes) == sorted(pairs.genes)
    plain = CellGraph.from_networks(ring)
    order = plain.index(module.graph.genes)
    expected = plain.scipy("ring")[order][:, order]
    assert (module.graph.scipy("ring") != expected).nnz == 0


def test_two_genes_of_the_screen_that_are_one_in_the_network_are_named(make_screen, tmp_path):
    screen = make_screen(["P|Q", "P|R", "Q|R"])
    graph = CellGraph.from_networks(
        [Network("n", np.array(["X", "R"]), np.array(["R", "Y"]), np.ones(2, dtype=np.float32), False)]
    )
    table = tmp_path / "aliases.csv"
    table.write_text("alias,gene\nP,X\nQ,X\n")
    with pytest.raises(InputError, match="are one gene of the network: 'P = X', 'Q = X'"):
        joined(screen, graph, table)


def test_restrict_keeps_the_screens_genes_and_their_neighbors(make_screen):
    screen = make_screen(["A|B", "A|C", "B|C"])
    edges = [("A", "n1"), ("n1", "n2"), ("B", "C"), ("n2", "n3")]
    source, target = (np.array(end) for end in zip(*edges, strict=True))
    plain = Network("n", source, target, np.ones(4, dtype=np.float32), directed=False)
    far = Network("far", np.array(["n2"]), np.array(["n3"]), np.ones(1, dtype=np.float32), directed=True)
    graph = CellGraph.from_networks([plain, far], restrict="screen")
    cut, counts = joined(screen, graph)
    assert cut.genes.tolist() == ["A", "B", "C", "n1"]
    assert cut.relations == ("n",), "a relation without an edge left goes"
    assert cut.n_edges("n") == 2
    assert counts == {"nodes of the network that no gene of the screen has an edge with": 2}
    with pytest.raises(InputError, match="graph.restrict='screeen'"):
        CellGraph.from_networks([plain], restrict="screeen")


def test_directed_edges_and_other_nodes_count_as_neighbors_from_either_end():
    one = np.ones(1, dtype=np.float32)
    into = Network("regulates", np.array(["TF"]), np.array(["A"]), one, directed=True)
    term = Network("annotated", np.array(["A"]), np.array(["GO:1"]), one, directed=True, target_type="term")
    other = Network("annotated2", np.array(["Z"]), np.array(["GO:2"]), one, directed=True, target_type="term")
    cut = CellGraph.from_networks([into, term, other]).around(["A"])
    assert cut.genes.tolist() == ["A", "TF"]
    assert cut.names("term").tolist() == ["GO:1"]
    assert cut.relations == ("regulates", "annotated")


def test_a_network_far_larger_than_the_screen_says_what_it_costs_before_training(make_screen):
    sets = [f"A{i}|A{j}" for i in range(6) for j in range(i)]
    chain = [f"A{i}" for i in range(6)] + [f"n{i}" for i in range(300)]
    network = Network("n", np.array(chain[:-1]), np.array(chain[1:]), np.ones(305, dtype=np.float32), directed=False)
    whole = PerturbationDataModule(make_screen(sets), RANDOM, CellGraph.from_networks([network]))
    assert any("306 genes" in note and "graph.restrict=screen" in note for note in whole.notes())
    cut = PerturbationDataModule(make_screen(sets), RANDOM, CellGraph.from_networks([network], restrict="screen"))
    assert len(cut.graph) == 7
    assert not cut.notes()


@pytest.mark.parametrize("fold", range(5))
def test_genes_are_held_out_where_each_fold_tests_enough_of_them(pairs, fold):
    module = PerturbationDataModule(pairs, HELD_OUT | {"fold": fold})
    assert module.split.method == "gene_disjoint_any"
    assert not module.notes()


def test_else_the_split_is_random_and_says_so_in_a_line(make_screen):
    sets = [f"A{i}|A{j}" for i in range(12) for j in range(i)]
    module = PerturbationDataModule(make_screen(sets), HELD_OUT)
    assert module.split.method == "random"
    assert module.design().split == "random"
    assert module.notes()[0].startswith(
        "12 genes in 5 folds leave fewer than 10 to test, so samples are dealt at random"
    )


@pytest.mark.parametrize(("n_genes", "expected"), [(12, 16), (60, 33)])
def test_a_screen_gets_steps_enough_an_epoch(make_screen, n_genes, expected):
    sets = [f"A{i}|A{j}" for i in range(n_genes) for j in range(i)]
    module = PerturbationDataModule(make_screen(sets), RANDOM, batch_size=None)
    assert module.batch_size == expected


def test_an_alias_of_two_genes_is_counted_and_named(make_screen, tmp_path):
    """It was swallowed: its gene stood without an edge, and nothing said why."""
    screen, ones = make_screen(["P|Q", "P|R", "Q|R"]), np.ones(3, dtype=np.float32)
    ends = np.array(["x", "y", "z"]), np.array(["y", "z", "x"])
    graph = CellGraph.from_networks([Network("n", *ends, ones, directed=False)])
    table = tmp_path / "aliases.csv"
    table.write_text("alias,gene\nx,P\ny,Q\nz,R\nx,S\n")
    _, counts = joined(screen, graph, table)
    assert counts["genes that the network knows by another name"] == 2
    assert counts["aliases of several genes, which are not used ('x = P or S')"] == 1
