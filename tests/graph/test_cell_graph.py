"""The graph holds each edge once per direction, knows its transpose, and survives a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.network import GeneRules, Network
from torchcell.io.errors import InputError
from torchcell.nn.sparse import spmm


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
    assert graph.dropped == {"net: self-loops": 1}


def test_edges_to_genes_outside_the_list_are_left_out_and_counted():
    graph = CellGraph.from_networks([network([("a", "b", 1), ("a", "x", 1)])], genes=["b", "a"])
    assert graph.genes.tolist() == ["b", "a"]
    assert graph.dropped == {"net: edges to unknown genes": 1}


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


def metabolism() -> list[Network]:
    """Two genes catalyse r1, which makes m1 twice over; one edge names a gene that nothing else knows."""
    ones = np.ones(3, dtype=np.float32)
    catalyses = Network(
        "catalyses", np.array(["a", "b", "x"]), np.array(["r1", "r1", "r2"]), ones, True, target_type="reaction"
    )
    produces = Network(
        "produces", np.array(["r1"]), np.array(["m1"]), 2 * ones[:1], True,
        source_type="reaction", target_type="metabolite",
    )  # fmt: skip
    return [network([("a", "b", 1), ("b", "c", 2)]), catalyses, produces]


def test_nodes_of_other_types_are_numbered_after_the_genes():
    graph = CellGraph.from_networks(metabolism(), genes=["a", "b", "c"])
    assert graph.node_types == ("gene", "reaction", "metabolite")
    assert graph.n_nodes == 3 + 2 + 1
    assert len(graph) == 3
    assert (graph.span("gene"), graph.span("reaction"), graph.span("metabolite")) == (
        slice(0, 3), slice(3, 5), slice(5, 6)
    )  # fmt: skip
    assert graph.ends("produces") == ("reaction", "metabolite")
    assert graph.scipy("catalyses").toarray().tolist() == [[1, 1, 0], [0, 0, 0]]
    assert graph.scipy("produces").toarray().tolist() == [[2, 0]]
    assert graph.dropped == {"catalyses: edges to unknown genes": 1}


def test_a_cell_with_other_nodes_survives_a_checkpoint_file(tmp_path):
    rules = GeneRules.parse("reaction", {"r1": "a and b"})
    graph = CellGraph.from_networks(metabolism(), genes=["a", "b", "c"], rules=rules)
    torch.save(graph.to_plain(), tmp_path / "graph.pt")
    again = CellGraph.from_plain(torch.load(tmp_path / "graph.pt", weights_only=True))
    assert again.hash == graph.hash
    assert again.node_types == graph.node_types
    assert again.ends("produces") == ("reaction", "metabolite")
    assert again.rules.target.tolist() == ["r1"]


def test_rules_and_other_nodes_are_part_of_the_hash():
    parts = {"genes": ["a", "b", "c"]}
    plain = CellGraph.from_networks(metabolism(), **parts)
    ruled = CellGraph.from_networks(metabolism(), rules=GeneRules.parse("reaction", {"r1": "a"}), **parts)
    assert plain.hash != ruled.hash


def test_a_relation_that_names_no_gene_of_the_graph_is_refused_with_its_names():
    with pytest.raises(InputError, match="relation net has no edges.*'a', 'b', 'c'"):
        CellGraph.from_networks([network([("a", "b", 1), ("b", "c", 2)])], genes=["x", "y"])


def test_an_undirected_relation_joins_nodes_of_one_type():
    mixed = Network("m", np.array(["a"]), np.array(["r"]), np.ones(1, np.float32), False, target_type="reaction")
    with pytest.raises(InputError, match="joins genes to reactions.*directed=True"):
        CellGraph.from_networks([mixed])


def test_a_rule_for_a_node_that_is_not_there_is_named():
    with pytest.raises(InputError, match="rules for reactions that no relation.*'r9'"):
        CellGraph.from_networks(metabolism(), genes=["a", "b"], rules=GeneRules.parse("reaction", {"r9": "a"}))


def test_rules_without_their_nodes_say_what_to_add():
    with pytest.raises(InputError, match="for reactions, but no relation.*rules to null"):
        CellGraph.from_networks([network([("a", "b", 1)])], rules=GeneRules.parse("reaction", {"r1": "a"}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nodes": {"gene": ["a"]}}, "leave them out of its further nodes"),
        ({"ends": {"makes": ("gene", "reaction"), "spoils": ("gene", "gene")}}, "without a matrix: 'spoils'"),
        ({"directed": []}, "makes joins genes to reactions: list it among the directed"),
        ({"ends": {"makes": ("gene", "metabolite")}}, "no nodes of type 'metabolite'"),
        ({"ends": {"makes": ("reaction", "gene")}}, r"shape \(1, 2\) for 2 genes, 1 reactions"),
    ],
)
def test_relations_that_do_not_fit_the_nodes_are_refused(changes, said):
    given = {
        "matrices": {"makes": np.ones((1, 2))}, "directed": ["makes"],
        "nodes": {"reaction": ["r"]}, "ends": {"makes": ("gene", "reaction")},
    }  # fmt: skip
    assert CellGraph(["a", "b"], **given).ends("makes") == ("gene", "reaction")
    with pytest.raises(InputError, match=said):
        CellGraph(["a", "b"], **(given | changes))


def test_spmm_gathers_from_the_source_type_at_the_target_type():
    graph = CellGraph.from_networks(metabolism(), genes=["a", "b", "c"])
    x = torch.randn(3, 4, requires_grad=True)
    y = spmm(graph, "catalyses", x)
    torch.testing.assert_close(y, torch.stack([x[0] + x[1], torch.zeros(4)]))
    y.sum().backward()
    assert x.grad.tolist() == [[1] * 4, [1] * 4, [0] * 4]


def test_added_genes_stand_before_the_other_nodes_and_have_no_edges():
    rules = GeneRules.parse("reaction", {"r1": "a and b"})
    graph = CellGraph.from_networks(metabolism(), genes=["a", "b", "c"], rules=rules)
    more = graph.with_genes(["y", "x"])
    assert more.genes.tolist() == ["a", "b", "c", "y", "x"]
    assert more.span("reaction") == slice(5, 7)
    assert (more.relations, more.directed, more.dropped) == (graph.relations, graph.directed, graph.dropped)
    assert [more.ends(name) for name in more.relations] == [graph.ends(name) for name in graph.relations]
    for name in graph.relations:
        before, after = graph.scipy(name).toarray(), more.scipy(name).toarray()
        rows, columns = before.shape
        assert np.array_equal(after[:rows, :columns], before)
        assert np.count_nonzero(after) == np.count_nonzero(before)
    assert dense(more)[3:].sum() == dense(more, transpose=True)[3:].sum() == 0
    assert more.conjuncts is not None
    assert more.conjuncts.node.tolist() == [5], "rules name nodes by their new numbers"
    assert CellGraph.from_plain(more.to_plain()).hash == more.hash != graph.hash
    assert len(graph) == 3, "the graph itself stays as it was"
    assert graph.with_genes([]) is graph


def test_a_relation_from_other_nodes_to_genes_takes_added_genes_too():
    term = Network("annotates", np.array(["t"]), np.array(["b"]), np.ones(1, np.float32), True, source_type="term")
    graph = CellGraph.from_networks([network([("a", "b", 1)]), term])
    assert graph.with_genes(["x"]).scipy("annotates").toarray().tolist() == [[0], [1], [0]]


def test_a_gene_is_not_added_twice():
    graph = CellGraph.from_networks([network([("a", "b", 1)])])
    with pytest.raises(InputError, match="lists genes twice: 'a'"):
        graph.with_genes(["x", "a"])
