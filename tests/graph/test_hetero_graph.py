"""The cell's graph goes to torch-geometric and back unchanged, and a user's own becomes one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch_geometric.data import HeteroData

from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.network import GeneRules, Network
from torchcell.io.errors import InputError
from torchcell.io.hetero_data import read_hetero_data, write_hetero_data
from torchcell.training.entry import conf_dir


def network(name, edges, directed=False, types=("gene", "gene")):
    source, target = (np.array(end) for end in zip(*edges, strict=True))
    weight = np.linspace(0.25, 1.0, len(edges), dtype=np.float32)
    return Network(name, source, target, weight, directed, source_type=types[0], target_type=types[1])


def cell() -> CellGraph:
    """Genes of which one has no edge, reactions with rules, an undirected and two directed relations."""
    networks = [
        network("physical", [("b", "a"), ("c", "a")]),
        network("regulatory", [("a", "b"), ("b", "a"), ("c", "b")], directed=True),
        network("catalyzes", [("a", "r1"), ("b", "r1"), ("c", "r2")], True, ("gene", "reaction")),
    ]
    return CellGraph.from_networks(networks, ["c", "d", "a", "b"], rules=GeneRules.parse("reaction", {"r1": "a and b"}))


def test_there_and_back_again_it_is_the_same_graph(tmp_path):
    graph = cell()
    write_hetero_data(graph.to_hetero_data(), tmp_path / "cell.pt")
    back = CellGraph.from_hetero_data(read_hetero_data(tmp_path / "cell.pt"))
    assert back.hash == graph.hash, "names, edges, weights, directions and rules"
    assert back.dropped == {}


def test_torch_geometric_finds_what_it_expects():
    data = cell().to_hetero_data()
    assert data.validate()
    assert data["gene"].node_id == ["c", "d", "a", "b"]
    source, target = data["gene", "catalyzes", "reaction"].edge_index
    named = {(data["gene"].node_id[a], data["reaction"].node_id[b]) for a, b in zip(source, target, strict=True)}
    assert named == {("a", "r1"), ("b", "r1"), ("c", "r2")}
    assert data["gene", "physical", "gene"].edge_index.shape == (2, 4), "both ways"
    assert not data["gene", "physical", "gene"].directed


def own() -> HeteroData:
    data = HeteroData()
    data["protein"].node_id = ["YAL001C", "YBR002W", "YCL003C"]
    data["protein"].x = torch.zeros(3, 4)
    data["protein", "binds", "protein"].edge_index = torch.tensor([[0, 1, 1], [1, 0, 1]])
    data["protein", "acts", "protein"].edge_index = torch.tensor([[0, 0], [2, 2]])
    data["protein", "acts", "protein"].edge_weight = torch.tensor([0.5, 0.75])
    return data


def test_a_graph_made_elsewhere_directions_weights_loops_and_repeats():
    graph = CellGraph.from_hetero_data(own(), genes="protein")
    assert graph.genes.tolist() == ["YAL001C", "YBR002W", "YCL003C"]
    assert graph.directed == {"acts"}, "its edges don't stand in both directions"
    assert graph.n_edges("binds") == 1
    assert graph.dropped == {"binds: self-loops": 1}
    assert graph.scipy("acts").toarray()[2, 0] == 0.75, "of an edge that stands twice the larger weight stays"
    assert CellGraph.from_hetero_data(own(), "protein", directed=["binds"]).directed == {"acts", "binds"}


def test_a_relation_says_itself_that_it_is_undirected():
    data = own()
    data["protein", "acts", "protein"].directed = False
    assert CellGraph.from_hetero_data(data, "protein").scipy("acts").toarray()[0, 2] == 0.75


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: None, "no node type 'gene' for its genes; it has .'protein'"),
        (lambda data: data["gene"].update({"num_nodes": 2}), "genes have no names"),
        (lambda data: data["gene"].update({"node_id": ["a", "a"]}), "lists genes twice: 'a'"),
        (lambda data: data["gene"].update({"node_id": ["a", "b"], "num_nodes": 3}), "2 entries for 3 nodes"),
    ],
)
def test_what_is_wrong_with_a_graph_is_named(spoil, said):
    data = own()
    spoil(data)
    with pytest.raises(InputError, match=said):
        CellGraph.from_hetero_data(data)


def test_the_command_line_reads_such_a_file(tmp_path):
    write_hetero_data(own(), tmp_path / "own.pt")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", ["graph=hetero_data", f"graph.path={tmp_path}/own.pt", "graph.genes=protein"])
    assert instantiate(cfg.graph).hash == CellGraph.from_hetero_data(own(), "protein").hash
