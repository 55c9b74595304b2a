from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.sources import costanzo2010, read_triples
from torchcell.screen.yeast_cell import read_network, yeast_genes, yeast_networks

UNDIRECTED = {
    "neighborhood": 45_610, "database": 33_486, "cooccurence": 2_664, "fusion": 1_361,
    "physical": 58_260, "coexpression": 14_826,
}  # fmt: skip


@pytest.fixture(scope="module")
def graph(mirror) -> CellGraph:
    return CellGraph.from_networks(yeast_networks(), yeast_genes())


@pytest.mark.mirror
def test_undirected_edges_after_symmetrising(graph):
    assert {name: graph.n_edges(name) for name in UNDIRECTED} == UNDIRECTED
    for name in UNDIRECTED:
        matrix = graph.scipy(name)
        assert (matrix != matrix.T).nnz == 0


@pytest.mark.mirror
def test_regulatory_edges_run_from_factor_to_target(mirror, graph):
    (regulatory,) = yeast_networks(["regulatory"])
    assert regulatory.directed
    assert len(set(zip(regulatory.source.tolist(), regulatory.target.tolist(), strict=True))) == 11_486
    header = (mirror / "yeast/YEASTRACT_20190713_BOTH.tsv").open().readline().split()[1:]
    factors = set(regulatory.source.tolist())
    assert len(factors) == 152  # of the 220 columns the others are empty
    assert factors - set(header) == {"YER109C"}  # the column FLO8
    # 43 factors regulate themselves; the graph keeps no self-loops and counts them
    assert graph.n_edges("regulatory") == 11_486 - 43
    assert graph.dropped["regulatory: self-loops"] == 43
    assert not any("unknown genes" in what for what in graph.dropped)


@pytest.mark.mirror
def test_string_files_are_one_based(mirror):
    genes = (mirror / "yeast/yeast_string_genes.txt").read_text().split()
    i, j, weight = (mirror / "yeast/yeast_string_fusion_adjacency.txt").read_text().split()[:3]
    (fusion,) = yeast_networks(["fusion"])
    assert (fusion.source[0], fusion.target[0]) == (genes[int(i) - 1], genes[int(j) - 1])
    assert fusion.weight[0] == np.float32(weight)
    assert fusion.dropped == {"rows that repeat an edge in the other direction": 1_361}


@pytest.mark.mirror
def test_the_vocabulary_loses_no_gene_of_the_screens(mirror):
    genes = yeast_genes()
    assert genes == sorted(set(genes))
    assert len(genes) == 6_775
    assert not set(costanzo2010().genes.tolist()) - set(genes)
    assert not {gene for triple in read_triples().positives for gene in triple} - set(genes)


@pytest.mark.mirror
def test_networks_come_in_the_order_asked_for(mirror):
    assert [network.name for network in yeast_networks(["physical", "fusion"])] == ["physical", "fusion"]


def test_an_unknown_network_names_the_nearest():
    with pytest.raises(InputError, match=r"neighborhod.*neighborhood"):
        yeast_networks(["neighborhod"])


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_users_edge_list_in_any_column_order(tmp_path, ending):
    path = tmp_path / f"edges.{ending}"
    table = pd.DataFrame({"weight": [0.5, 1.0], "target": ["B", "NA"], "source": ["A", "B"]})
    if ending == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if ending == "tsv" else ",", index=False)
    network = read_network(path, "mine", directed=True)
    assert network.source.tolist() == ["A", "B"]
    assert network.target.tolist() == ["B", "NA"]
    assert network.weight.tolist() == [0.5, 1.0]
    assert network.directed


def test_edges_weigh_one_without_a_weight_column(tmp_path):
    (tmp_path / "edges.csv").write_text("source,target\nA,B\n")
    assert read_network(tmp_path / "edges.csv", "mine").weight.tolist() == [1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,to\nA,B\n", "no column 'target'; it has 'source', 'to'"),
        ("source,target\nA,B\nC,\n", "without both genes: '3'"),
        ("source,target,weight\nA,B,1\nC,D,strong\n", "column 'weight' holds numbers but for 'row 3: strong'"),
        ("source,target\n", "no rows"),
    ],
)
def test_a_bad_edge_list_names_what_is_wrong(tmp_path, text, message):
    (tmp_path / "edges.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_network(tmp_path / "edges.csv", "mine")
