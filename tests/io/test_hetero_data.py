"""A knowledge graph goes to torch-geometric and back unchanged; a user's own graph is read, and no code in its file run."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch_geometric.data import HeteroData
from torch_geometric.transforms import ToUndirected

from torchcell.io.errors import InputError
from torchcell.io.hetero_data import read_hetero_data, write_hetero_data
from torchcell.knowledge_graph.record import KnowledgeGraph
from torchcell.knowledge_graph.simulate import simulate_knowledge_graph
from torchcell.knowledge_graph.table import knowledge_graph_file, read_knowledge_graph
from torchcell.training import build as assemble
from torchcell.training.entry import conf_dir


def small() -> KnowledgeGraph:
    """Nodes and edges in mixed order, with names, licences and a directed edge type."""
    nodes = pd.DataFrame(
        {"id": ["g1", "d1", "g2", "g3"], "name": list("abcd"), "type": ["Gene", "Drug", "Gene", "Gene"]}
    )
    edges = [("g2", "Gr>G", "g1"), ("d1", "DbG", "g3"), ("g1", "GiG", "g3"), ("d1", "DbG", "g1"), ("g1", "Gr>G", "g2")]
    table = pd.DataFrame(edges, columns=["source", "edge_type", "target"]).assign(licence=list("xyxyz"))
    return KnowledgeGraph.from_tables(nodes, table, directed=("Gr>G",)).validate()


@pytest.mark.parametrize("graph", [small(), simulate_knowledge_graph().graph], ids=["small", "simulated"])
def test_there_and_back_again_it_is_the_same_graph(graph, tmp_path):
    write_hetero_data(graph.to_hetero_data(), tmp_path / "graph.pt")
    back = KnowledgeGraph.from_hetero_data(
        read_hetero_data(tmp_path / "graph.pt"), node_types=graph.node_types
    ).validate()
    assert back.fingerprint() == graph.fingerprint()
    assert back.sample_id.tolist() == graph.sample_id.tolist()


def test_torch_geometric_finds_what_it_expects():
    data = small().to_hetero_data()
    assert data.validate()
    assert data.node_types == ["Drug", "Gene"]
    assert data.edge_types == [("Drug", "DbG", "Gene"), ("Gene", "GiG", "Gene"), ("Gene", "Gr>G", "Gene")]
    assert data["Gene"].node_id == ["g1", "g2", "g3"]
    assert data["Gene"].name == ["a", "c", "d"]
    assert data["Drug", "DbG", "Gene"].edge_index.tolist() == [[0, 0], [2, 0]]
    assert data["Drug", "DbG", "Gene"].licence == ["y", "y"]
    assert data["Gene", "Gr>G", "Gene"].directed


def made() -> HeteroData:
    """As a user of torch-geometric may have it: numbers for nodes, features, one relation between two pairs of types."""
    data = HeteroData()
    data["drug"].x = torch.zeros(2, 3)
    data["protein"].num_nodes = 3
    data["disease"].num_nodes = 1
    data["drug", "to", "protein"].edge_index = torch.tensor([[0, 1], [2, 0]])
    data["drug", "to", "disease"].edge_index = torch.tensor([[1], [0]])
    data["protein", "binds", "protein"].edge_index = torch.tensor([[0], [1]])
    return data


def test_a_graph_without_names_gets_them_from_types_and_numbers():
    graph = KnowledgeGraph.from_hetero_data(made(), "made").validate()
    assert graph.node_id.tolist() == ["drug:0", "drug:1", "protein:0", "protein:1", "protein:2", "disease:0"]
    assert graph.sample_id.tolist() == [
        "drug:0|drug-to-protein|protein:2",
        "drug:1|drug-to-protein|protein:0",
        "drug:1|drug-to-disease|disease:0",
        "protein:0|binds|protein:1",
    ]
    assert graph.node_types == ("drug", "protein", "disease")


def test_edges_that_torch_geometric_added_backwards_are_no_facts_and_are_counted():
    """``ToUndirected`` doubles every edge: each would be leaked from the training part to the test part."""
    data = small().to_hetero_data()
    del data["Gene", "GiG", "Gene"], data["Gene", "Gr>G", "Gene"]
    doubled = ToUndirected()(data)
    assert ("Gene", "rev_DbG", "Drug") in doubled.edge_types
    graph = KnowledgeGraph.from_hetero_data(doubled).validate()
    assert graph.edge_types == ("DbG",)
    assert graph.dropped == {"rev_DbG: reverse edges": 2}


def test_a_relation_that_is_only_called_reverse_stays():
    data = made()
    data["protein", "rev_binds", "protein"].edge_index = torch.tensor([[2], [0]])
    assert "rev_binds" in KnowledgeGraph.from_hetero_data(data).validate().edge_types


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data["drug", "to", "protein"].update({"edge_index": torch.tensor([[0], [7]])}), "protein: '7'"),
        (lambda data: data["drug", "to", "protein"].pop("edge_index"), "drug-to-protein has no edge_index"),
        (lambda data: data["protein"].update({"node_id": ["p1", "p2"]}), "protein: node_id has 2 entries for 3 nodes"),
        (lambda data: data["protein"].pop("num_nodes"), "no such nodes of type protein|without nodes"),
    ],
)
def test_what_is_wrong_with_a_graph_is_named(spoil, said):
    data = made()
    spoil(data)
    with pytest.raises(InputError, match=said):
        KnowledgeGraph.from_hetero_data(data).validate()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickled_object_is_refused_and_nothing_in_it_runs(tmp_path):
    torch.save({"drug": {"node_id": Trap(tmp_path / "sprung")}}, tmp_path / "trap.pt")
    torch.save(made(), tmp_path / "whole.pt")
    for name in ("trap.pt", "whole.pt"):
        with pytest.raises(InputError, match=r"pickled object, which is never loaded.*data.to_dict"):
            read_hetero_data(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [{"weight": torch.zeros(2)}, [1, 2], {}])
def test_a_file_that_holds_no_graph_is_named(content, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other.pt holds no graph"):
        read_hetero_data(tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("id,name\n")
    with pytest.raises(InputError, match=r"text.pt"):
        read_hetero_data(tmp_path / "text.pt")


def test_the_command_line_reads_such_a_file_in_the_place_of_two_tables(tmp_path):
    simulated = simulate_knowledge_graph().graph
    write_hetero_data(simulated.to_hetero_data(), tmp_path / "mine.pt")
    nodes, edges = simulated.to_tables()
    nodes.to_csv(tmp_path / "nodes.csv", index=False)
    edges.to_csv(tmp_path / "edges.csv", index=False)
    found = []
    for pair in (("mine.pt", "mine.pt"), ("nodes.csv", "edges.csv")):
        paths = [f"data.record.{part}={tmp_path / name}" for part, name in zip(("nodes", "edges"), pair, strict=True)]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            directed = f"data.record.graph.directed=[{','.join(repr(name) for name in simulated.directed)}]"
            cfg = compose("config", ["data=knowledge_graph", "data.record.supervised=all", directed, *paths])
        found.append(assemble.datamodule(cfg))
    assert found[0].sample_id.tolist() == found[1].sample_id.tolist()
    with pytest.raises(InputError, match="is a whole graph without columns"):
        read_knowledge_graph(tmp_path / "mine.pt", tmp_path / "edges.csv")
    with pytest.raises(InputError, match="nothere.pt"):
        knowledge_graph_file(tmp_path / "nothere.pt", tmp_path / "nothere.pt", "all")
