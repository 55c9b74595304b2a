"""Candidates in batches: no held-out edge is seen by anyone, ranks equal a naive count, requests are checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

import torchcell.knowledge_graph.datamodule as link_ranking
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.network import Network
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.datamodule import LinkDataModule, LinkRanking, PackedLinks
from torchcell.knowledge_graph.record import KnowledgeGraph, Links, link_samples
from torchcell.knowledge_graph.simulate import simulated_links
from torchcell.knowledge_graph.typed_graph import TypedGraph
from torchcell.training.baselines import fit_baselines

EDGES = {"method": "edges", "n_folds": 5}


@pytest.fixture(scope="module")
def data() -> LinkDataModule:
    record = simulated_links("all", n_genes=60, n_compounds=30, n_diseases=20, n_communities=5)
    return LinkDataModule(record, EDGES, batch_size=64)


def both_ways(graph: KnowledgeGraph) -> set[tuple[str, str, str]]:
    ends = list(zip(graph.edge_type.tolist(), graph.source_id.tolist(), graph.target_id.tolist(), strict=True))
    return {*ends, *((name, target, source) for name, source, target in ends)}


def test_no_held_out_edge_is_in_any_graph_that_is_seen_in_either_direction(data: LinkDataModule) -> None:
    seen = both_ways(data.message_graph)
    plain = TypedGraph.from_plain(data.spec.knowledge_graph)
    n_seen = 0
    for part in ("train", "val", "test"):
        record = data.record(part)
        assert record.graph is data.message_graph
        edges = record.subset(record.positive)
        ids = record.node_id
        pairs = zip(
            edges.edge_type.tolist(), ids[edges.source_index].tolist(), ids[edges.target_index].tolist(), strict=True
        )
        there = [pair in seen for pair in pairs]
        assert all(there) if part == "train" else not any(there)
        packed = PackedLinks(edges, data.spec)
        for code, edge_type in enumerate(plain.edge_types):
            own = packed.edge_type == code
            number = plain.edge_number(edge_type, packed.source_node[own], packed.target_node[own])
            assert (number >= 0).all() if part == "train" else (number < 0).all()
            n_seen += int((number >= 0).sum())
    assert n_seen == len(data.message_graph)


def test_both_directions_of_a_directed_edge_are_in_one_part() -> None:
    rng = np.random.default_rng(0)
    ids = [f"g{i:02d}" for i in range(40)]
    pairs = np.unique(rng.integers(0, 40, size=(60, 2)), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    pairs = np.concatenate([pairs, pairs[:20, ::-1]])
    nodes = pd.DataFrame({"id": ids, "name": ids, "type": "Gene"})
    edges = pd.DataFrame({"source": np.array(ids)[pairs[:, 0]], "target": np.array(ids)[pairs[:, 1]]})
    graph = KnowledgeGraph.from_tables(nodes, edges.assign(edge_type="G>G"), directed=["G>G"]).validate()
    data = LinkDataModule(link_samples(graph, "G>G"), EDGES)
    test = data.record("test")
    held = both_ways(data.record_whole.graph.subset(np.isin(graph.sample_id, test.sample_id[test.positive])))
    assert not held & both_ways(data.message_graph)
    assert len(data.message_graph) == data.record("train").positive.sum()


def test_a_batch_names_nodes_of_the_typed_graph(data: LinkDataModule) -> None:
    graph, whole = TypedGraph.from_plain(data.spec.knowledge_graph), data.record_whole
    batch = next(iter(data.loader("train")))
    sample = batch.sample.numpy()
    assert graph.node_id[batch.source_node.numpy()].tolist() == whole.node_id[whole.source_index[sample]].tolist()
    assert graph.node_id[batch.target_node.numpy()].tolist() == whole.node_id[whole.target_index[sample]].tolist()
    assert np.array(graph.edge_types)[batch.edge_type.numpy()].tolist() == whole.edge_type[sample].tolist()
    np.testing.assert_array_equal(batch.target.numpy(), whole.label[sample])


def test_shuffling_exchanges_sources_within_a_edge_type_and_part_only(data: LinkDataModule) -> None:
    index = torch.from_numpy(data.split.index("test"))
    twin = data.shuffled("source_node", index, torch.Generator().manual_seed(0))
    assert twin is not None
    packed, elsewhere = data.packed, torch.from_numpy(data.split.index("train"))
    assert torch.equal(twin.source_node[elsewhere], packed.source_node[elsewhere])
    assert (twin.source_node[index] != packed.source_node[index]).float().mean() > 0.8
    for code in packed.edge_type.unique():
        at = index[packed.edge_type[index] == code]
        assert torch.equal(twin.source_node[at].sort().values, packed.source_node[at].sort().values)


def all_ranks(ranking: LinkRanking, score: Callable[[Links], np.ndarray]) -> np.ndarray:
    """Ranks of all edges by the scores [n, 1] of each edge type's candidates."""
    found = {}
    for edge_type in ranking.links.supervised:
        record = ranking.record(edge_type)
        found[edge_type] = ranking.ranks(edge_type, np.broadcast_to(score(record), (len(record), len(record.outputs))))
    return ranking.together(found)


def naive_ranks(ranking: LinkRanking, score: dict[tuple[str, int, int], float], known: KnowledgeGraph) -> np.ndarray:
    links, found = ranking.links, np.full((len(ranking.edge), len(ranking.outputs)), np.nan)
    for row, i in enumerate(ranking.edge.tolist()):
        edge_type, own = str(links.edge_type[i]), (int(links.source_index[i]), int(links.target_index[i]))
        edges = known.subset(known.edge_type == edge_type)
        true = set(zip(edges.source_index.tolist(), edges.target_index.tolist(), strict=True))
        true |= {(b, a) for a, b in true} if edge_type in known.symmetric else set()
        for place in (0, 1):  # target given source, source given target
            rank, value = 1.0, score[edge_type, *own]
            for node in np.flatnonzero(known.node_type == known.ends[edge_type][1 - place]).tolist():
                pair = (own[0], node) if place == 0 else (node, own[1])
                if pair != own and pair not in true and pair[0] != pair[1]:
                    other = score[edge_type, *pair]
                    rank += 1.0 if other > value else 0.5 if other == value else 0.0
            found[row, 2 * links.supervised.index(edge_type) + place] = rank
    return found


@pytest.mark.parametrize("full", [10**6, 0], ids=["whole tables", "rows and columns"])
def test_ranks_equal_a_naive_count_with_ties_and_filtering(
    data: LinkDataModule, full: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_ranking, "FULL", full)
    monkeypatch.setattr(link_ranking, "AT_ONCE", 200)
    known = data.record_whole.graph
    ranking = LinkRanking(data.record("test"), known, limit=15, seed=0)
    rng = np.random.default_rng(0)
    score_of = {
        (edge_type, a, b): float(rng.integers(0, 12))
        for edge_type in known.edge_types
        for a in range(len(known.node_id))
        for b in range(len(known.node_id))
    }

    def scores(record: Links) -> np.ndarray:
        keys = zip(record.edge_type.tolist(), record.source_index.tolist(), record.target_index.tolist(), strict=True)
        return np.array([score_of[key] for key in keys], dtype=np.float32)[:, None]

    ranks = all_ranks(ranking, scores)
    np.testing.assert_allclose(ranks, naive_ranks(ranking, score_of, known))
    np.testing.assert_array_equal(np.isnan(ranks), np.isnan(ranking.ranked()))
    counts = pd.Series(ranking.links.edge_type[ranking.edge]).value_counts()
    assert (counts <= 15).all() if full == 0 else counts.max() > 15
    record = ranking.record("CtD")
    assert set(record.edge_type) == {"CtD"}
    assert np.isnan(record.label).all()
    assert len(record) == len(record.subset(np.arange(len(record))))


def test_a_perfect_score_ranks_first_a_constant_in_the_middle_and_no_score_is_undefined(data: LinkDataModule) -> None:
    ranking, known = data.ranking("test"), data.record_whole.graph
    held, true = ~np.isnan(ranking.ranked()), both_ways(known)

    def perfect(record: Links) -> np.ndarray:
        ids = record.node_id
        ends = (record.edge_type.tolist(), ids[record.source_index].tolist(), ids[record.target_index].tolist())
        return np.array([pair in true for pair in zip(*ends, strict=True)], dtype=np.float32)[:, None]

    assert (all_ranks(ranking, perfect)[held] == 1).all()
    flat = all_ranks(ranking, lambda record: 0 * perfect(record))
    drug = ranking.outputs.index("CtD_tail")
    rows = np.flatnonzero(held[:, drug])
    source = ranking.links.source_index[ranking.edge[rows]]
    n_true = [int(((known.edge_type == "CtD") & (known.source_index == node)).sum()) for node in source]
    n_diseases = int((known.node_type == "Disease").sum())
    np.testing.assert_allclose(flat[rows, drug], [1 + (n_diseases - n) / 2 for n in n_true])
    assert np.isnan(all_ranks(ranking, lambda record: np.nan * perfect(record))).all()
    # A wrong candidate without a score stands below.
    below = all_ranks(ranking, lambda record: np.where(perfect(record) == 1, np.float32(1), np.float32(np.nan)))
    assert (below[held] == 1).all()


def test_a_batch_that_leaves_hardly_an_edge_to_learn_from_is_told_of(data: LinkDataModule) -> None:
    n_train = data.split.counts()["train"]
    warned = LinkDataModule(data.record_whole, EDGES, batch_size=int(0.9 * n_train)).notes()
    assert len(warned) == len(data.notes()) + 1
    assert "WARNING: data.batch_size" in warned[0]
    assert f"Set data.batch_size to {n_train // 4:,} or less" in warned[0]
    assert not any("WARNING" in note for note in data.notes())


def test_a_edge_type_without_an_edge_after_the_split_is_refused(tmp_path: Path) -> None:
    record = simulated_links(["CtD", "CbG"], n_genes=60, n_compounds=30, n_diseases=20, n_communities=5)
    part = np.where(np.arange(len(record)) % 5 == 0, "test", np.where(np.arange(len(record)) % 5 == 1, "val", "train"))
    part[(record.edge_type == "CtD") & record.positive] = "test"
    pd.DataFrame({"sample_id": record.sample_id, "part": part}).to_csv(tmp_path / "split.csv", index=False)
    with pytest.raises(InputError, match="no edge in train after the split of the edge types {'CtD'"):
        LinkDataModule(record, {"method": "file", "file": tmp_path / "split.csv"})


def test_settings_that_do_not_fit_are_refused(data: LinkDataModule, ring: list[Network]) -> None:
    with pytest.raises(InputError, match="must be 1 or more, or null"):
        LinkDataModule(data.record_whole, EDGES, rank_edges=0)
    with pytest.raises(InputError, match="set graph=none"):
        LinkDataModule(data.record_whole, EDGES, CellGraph.from_networks(ring))


def test_ranks_of_baselines_are_kept_and_others_asked_for_are_not_answered_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path))
    monkeypatch.setattr(link_ranking, "FULL", 0)
    record = simulated_links("CtD", n_genes=60, n_compounds=40, n_diseases=30, n_communities=5)
    config = {"degrees": OmegaConf.create({"_target_": "bilinear_links.Degrees"})}
    shapes, n_files = [], []
    for rank_edges in (4, 4, 6):
        data = LinkDataModule(record, EDGES, rank_edges=rank_edges)
        found = fit_baselines(data, config, "test").predictions
        assert found[""]["degrees"].shape == (len(data.record("test")), 2)
        shapes.append(found["ranking CtD"]["degrees"].shape)
        n_files.append(len(list((tmp_path / "baselines").glob("*.npz"))))
    assert shapes == [(4, 2), (4, 2), (6, 2)]
    assert n_files == [1, 1, 2]


def ask(data: LinkDataModule, folder: Path, text: str) -> Links:
    path = folder / "asked.csv"
    path.write_text(text)
    return data.read_request(str(path), data.spec)


def test_a_request_is_read_by_id_and_answered_with_names(data: LinkDataModule, tmp_path: Path) -> None:
    rows = "Compound::0002,CtD,Disease::0001\nDisease::0003,DaG,Gene::0007"
    record = ask(data, tmp_path, f"source,edge_type,target\n{rows}")
    packed, graph = data.pack(record, data.spec), TypedGraph.from_plain(data.spec.knowledge_graph)
    assert graph.node_id[packed[torch.arange(2)].source_node.numpy()].tolist() == ["Compound::0002", "Disease::0003"]
    table = data.to_table(record, np.zeros((2, len(data.spec.outputs))), data.spec)
    assert list(table.columns[:6]) == ["sample_id", "edge_type", "source", "source_name", "target", "target_name"]
    assert table["target_name"].tolist() == ["disease 0001", "gene 0007"]
    assert table["sample_id"][0] == "Compound::0002|CtD|Disease::0001"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,target\nCompound::0001,Disease::0001", "no column 'edge_type'"),
        ("source,metaedge,target\nCompound::0001,CtD,Disease::0001", "'metaedge' is called 'edge_type'"),
        ("source,edge_type,target\nCompound::0001,CtX,Disease::0001", "not trained to predict: 'CtX .row 2.'"),
        (
            "source,edge_type,target\ncompound:0001,CtD,Disease::0001",
            "'compound:0001 .row 2.'; did you mean .*Compound",
        ),
        ("source,edge_type,target\nCompound::0001,CtD,disease 0004", "did you mean disease 0004 -> Disease::0004"),
        (
            "source,edge_type,target\nDisease::0001,CtD,Compound::0001",
            "source must be of the node type Compound.*exchange",
        ),
    ],
)
def test_a_bad_request_is_refused_with_its_rows(data: LinkDataModule, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask(data, tmp_path, text)
