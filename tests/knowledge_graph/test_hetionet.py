"""Hetionet with its known counts, licences and limits; a user's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchcell.cells.sources import papalexi2021
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.record import KnowledgeGraph, best_connected, connected, of_licences
from torchcell.knowledge_graph.sources import (
    hetionet_5k,
    hetionet_5k_graph,
    hetionet_core,
    hetionet_core_graph,
    hetionet_networks,
)
from torchcell.knowledge_graph.table import GraphOptions, knowledge_graph_file, read_knowledge_graph


@pytest.mark.mirror
def test_the_core_has_its_known_counts(mirror: Path) -> None:
    graph = hetionet_core_graph().validate()
    assert pd.Series(graph.node_type).value_counts().to_dict() == {
        "Gene": 16_582, "Pathway": 1_822, "Compound": 1_394, "Disease": 136,
    }  # fmt: skip
    assert pd.Series(graph.edge_type).value_counts().to_dict() == {
        "GiG": 146_937, "GpPW": 84_372, "DaG": 12_623, "CbG": 11_571, "CtD": 755, "DrD": 543, "CpD": 390,
    }  # fmt: skip
    assert graph.symmetric == {"GiG", "DrD"}
    assert (graph.node_type == np.sort(graph.node_type)).all()
    assert not graph.dropped
    assert len(hetionet_core()) == 3 * 755


@pytest.mark.mirror
def test_its_gene_networks_know_every_target_of_papalexi_by_symbol(mirror: Path) -> None:
    interaction, annotated = (network.validate() for network in hetionet_networks())
    assert (len(interaction.source), len(annotated.source)) == (146_937, 84_372)
    assert (interaction.target_type, annotated.target_type) == ("gene", "pathway")
    assert (interaction.directed, annotated.directed) == (False, True)
    joined = {frozenset(edge) for edge in zip(interaction.source.tolist(), interaction.target.tolist(), strict=True)}
    assert frozenset(("STAT1", "IFNGR1")) in joined
    targets = {gene for genes in papalexi2021().targets for gene in genes}
    assert len(targets) == 25
    assert targets <= set(interaction.genes.tolist())


@pytest.mark.mirror
def test_the_licence_filter_keeps_edges_by_the_files_own_words(mirror: Path) -> None:
    links = hetionet_core("GiG", licences=["CC0 1.0", "not stated"])
    assert set(links.graph.licence) == {"CC0 1.0", ""}
    assert links.dropped["edges of other licences"] == 257_191 - len(links.graph) == 97_982
    with pytest.raises(InputError, match=r"no edge has the licence \['CC0'\].*'CC0 1.0' \(9,842 edges\)"):
        hetionet_core(licences=["CC0"])


@pytest.mark.mirror
def test_the_5k_sample_has_all_edge_types_and_only_nodes_with_edges(mirror: Path) -> None:
    whole = hetionet_5k_graph()
    assert (len(whole.node_id), len(whole.node_types), len(whole.edge_types), len(whole)) == (47_031, 11, 24, 99_676)
    links = hetionet_5k()
    assert links.dropped == {"nodes without an edge": 20_457}
    assert len(links.node_id) == 47_031 - 20_457
    assert "Gr>G" not in whole.symmetric


def toy(**changes: object) -> KnowledgeGraph:
    rng = np.random.default_rng(0)
    ids = [f"{node_type}{i:02d}" for node_type in "XY" for i in range(20)]
    nodes = pd.DataFrame({"id": ids, "name": ids, "type": ["X"] * 20 + ["Y"] * 20})
    pairs = np.argwhere(rng.random((20, 19)) < np.linspace(0.05, 0.6, 20)[:, None])  # Y19 has no edge
    edges = pd.DataFrame({"source": [ids[i] for i, _ in pairs], "target": [ids[20 + j] for _, j in pairs]})
    return KnowledgeGraph.from_tables(nodes, edges.assign(edge_type="XY"), "toy").validate()


def test_a_limit_keeps_the_best_connected_nodes_of_each_type_in_proportion() -> None:
    graph = connected(toy())
    assert graph.dropped == {"nodes without an edge": 1}
    small = best_connected(graph, 20).validate()
    assert pd.Series(small.node_type).value_counts().to_dict() == {"X": 10, "Y": 9}
    degree = np.bincount(graph.source_index, minlength=39)[:20]
    kept = np.isin(graph.node_id[:20], small.node_id)
    assert degree[kept].min() >= degree[~kept].max()
    assert small.dropped["nodes beyond limit_nodes=20"] == 20
    assert small.dropped["edges of such nodes"] == len(graph) - len(small)
    assert best_connected(graph, None) is graph
    with pytest.raises(InputError, match="limit_nodes=3: 2 node types need at least 4 nodes"):
        best_connected(graph, 3)


def test_licences_that_nobody_told_cannot_be_filtered() -> None:
    with pytest.raises(InputError, match="no column of licences; set licences=null"):
        of_licences(toy(), ["CC0"])


NODES = "node;label;sort\n".replace(";", ",") + "g1,one,Gene\ng2,two,Gene\nd1,NA,Drug\nd2,other,Drug\ng3,three,Gene\n"


def files(folder: Path, edges: str, nodes: str = NODES, ending: str = ".csv") -> dict:
    (folder / "nodes.csv").write_text(nodes)
    (folder / f"edges{ending}").write_text(edges)
    columns = {"id": "node", "name": "label", "type": "sort"}
    return {"nodes": folder / "nodes.csv", "edges": folder / f"edges{ending}", "columns": columns}


def test_any_two_files_are_read_by_their_column_names(tmp_path: Path) -> None:
    rows = [("d1", "binds", "g1"), ("d1", "binds", "g2"), ("g1", "meets", "g3"), ("d2", "binds", "g3")]
    text = "\n".join(["source,edge_type,target", *(",".join(row) for row in rows)])
    graph = read_knowledge_graph(**files(tmp_path, text))
    assert graph.node_id.tolist() == ["d1", "d2", "g1", "g2", "g3"]  # by node type, else in the file's order
    assert graph.node_name.tolist() == ["NA", "other", "one", "two", "three"]
    assert graph.sample_id.tolist() == ["|".join(row) for row in rows]
    for head in ("source\tedge_type\ttarget\n", ""):
        sif = head + "\n".join("\t".join(row) for row in rows)
        again = read_knowledge_graph(**files(tmp_path, sif, ending=".sif"))
        assert again.sample_id.tolist() == graph.sample_id.tolist()


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ("d1,binds,g9", {}, "outside the node table .'g9'.*'d1.binds.g9'"),
        ("d1,binds,g1\nd1,binds,g1", {}, "an edge that an earlier row has too.*'d1.binds.g1'"),
        ("g1,meets,g2\ng2,meets,g1", {}, "in either direction: 'g2.meets.g1'"),
        ("g1,meets,g1", {}, "from a node to itself: 'g1.meets.g1'"),
        ("d1,binds,g1", {"graph": GraphOptions(node_types=["Drug", "Gene", "Disease"])}, "node types without nodes: 'Disease'"),
        ("d1,binds,g1", {"supervised": "bind"}, "no edge type 'bind' with edges; the nearest are .'binds'"),
        ("d1,binds,g1", {"graph": GraphOptions(licences=["CC0"])}, "no column of licences"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_and_the_rows_named(tmp_path: Path, rows: str, options: dict, message: str) -> None:
    given = files(tmp_path, f"source,edge_type,target\n{rows}") | {"supervised": "binds"} | options
    with pytest.raises(InputError, match=message):
        knowledge_graph_file(**given)
    with pytest.raises(InputError, match="no column 'type'"):
        knowledge_graph_file(**(given | {"columns": {"id": "node", "name": "label"}}))


@pytest.mark.parametrize("ending", [".csv", ".sif"])
def test_columns_named_as_before_are_refused_with_the_key_that_reads_them(tmp_path: Path, ending: str) -> None:
    blank = "," if ending == ".csv" else "\t"
    rows = "\n".join(blank.join(row) for row in [("source", "metaedge", "target"), ("d1", "binds", "g1")])
    given = files(tmp_path, rows, NODES.replace("sort", "kind").replace("node,label", "id,name"), ending)
    said = (
        r"'type', but 'kind'; .*'edge_type', but 'metaedge': .*'data.record.columns={type: kind, edge_type: metaedge}'"
    )
    with pytest.raises(InputError, match=said):
        read_knowledge_graph(given["nodes"], given["edges"])
    columns = {"type": "kind", "edge_type": "metaedge"}
    assert read_knowledge_graph(given["nodes"], given["edges"], columns).sample_id.tolist() == ["d1|binds|g1"]
