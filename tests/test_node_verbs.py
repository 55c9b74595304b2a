"""embed and predict on a knowledge graph: nodes with their health, and ranked links with what is known of them."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import torchcell as tc
from torchcell import embed as embed_verb
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.datamodule import LinkDataModule
from torchcell.knowledge_graph.embedding_health import type_health
from torchcell.predict import predict
from torchcell.training import build as assemble
from torchcell.training import checkpoint
from torchcell.training.entry import conf_dir

CONFIG = {
    "data": {
        "_target_": "torchcell.knowledge_graph.datamodule.LinkDataModule",
        "record": {
            "_target_": "torchcell.knowledge_graph.simulate.simulated_links",
            "edge_types": "CtD",
            "n_genes": 120,
            "n_compounds": 50,
            "n_diseases": 30,
        },
    },
    "model": {"_target_": "typed_toy.Dots"},
    "graph": {},
    "split": {"method": "edges", "n_folds": 10, "fold": 0, "seed": 0},
    "seed": 0,
}


@pytest.fixture(scope="module")
def data() -> LinkDataModule:
    return assemble.datamodule(OmegaConf.create(CONFIG))


def saved(folder: Path, data: LinkDataModule, vectors: torch.Tensor | None = None) -> Path:
    """A checkpoint of given vectors."""
    config = OmegaConf.create(CONFIG)
    state = instantiate(config.model, _partial_=True)(spec=data.spec, vectors=vectors).state_dict()
    about = {checkpoint.KEY: checkpoint.describe(data.spec, config)}
    torch.save({"state_dict": state, "epoch": 0, **about}, folder / "best.ckpt")
    return folder / "best.ckpt"


def composed(verb: str, ckpt: Path, out: Path, *overrides: str):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(verb, [f"ckpt='{ckpt}'", f"out='{out}'", "trust=[typed_toy]", *overrides])


def one_by_one(data: LinkDataModule, part: str, vectors: np.ndarray) -> tuple[float, float]:
    """AUROC of dot products and of degree products against matched negatives, each pair compared with each."""
    record, ids = data.record(part), data.spec.knowledge_graph.node_id
    row = {name: i for i, name in enumerate(ids)}
    known = data.record("train")
    known = known.subset(known.positive)
    scores: list[tuple[float, float, float]] = []
    for source, target, label in zip(record.source_index, record.target_index, record.label[:, 0], strict=True):
        dot = vectors[row[record.node_id[source]]] @ vectors[row[record.node_id[target]]]
        degrees = (known.source_index == source).sum() + 0.1, (known.target_index == target).sum() + 0.1
        scores.append((label, dot, degrees[0] * degrees[1]))
    table = np.array(scores)
    links, others = table[table[:, 0] == 1, 1:], table[table[:, 0] == 0, 1:]
    wins = (links[:, None] > others[None]) + 0.5 * (links[:, None] == others[None])
    return tuple(wins.mean((0, 1)).tolist())


@pytest.mark.parametrize("part", ["test", "val"])
def test_embed_writes_every_node_and_judges_it_by_held_out_links(data, tmp_path, part):
    found = embed_verb.embed(composed("embed", saved(tmp_path, data), tmp_path / "e.h5ad", f"part={part}"))
    table, graph = anndata.read_h5ad(tmp_path / "e.h5ad"), data.spec.knowledge_graph
    assert table.obs["id"].tolist() == table.obs_names.tolist() == list(graph.node_id)
    assert table.obs["name"].tolist() == list(graph.node_name)
    type_of = dict(zip(data.record_whole.node_id, data.record_whole.graph.node_type, strict=True))
    assert table.obs["type"].tolist() == [type_of[name] for name in graph.node_id]
    assert table.uns["split_hash"] == data.split.hash
    genes = type_health("Gene", table.X[(table.obs["type"] == "Gene").to_numpy()])
    health = {one.node_type: one for one in found.health}
    assert health["Gene"] == genes
    in_python = tc.load(tmp_path / "best.ckpt", trust=["typed_toy"]).embed(part=part)
    np.testing.assert_array_equal(in_python.X, table.X)
    pd.testing.assert_frame_equal(in_python.uns["health"], table.uns["health"], check_dtype=False)
    (skill,) = health["Disease"].links
    assert (skill.auroc, skill.degree_auroc) == pytest.approx(one_by_one(data, part, table.X), abs=1e-6)
    assert set(found.energies) == {"CbG", "CtD", "DaG", "GiG"}
    assert "AUROC" in (tmp_path / "e.html").read_text()


def test_embed_leaves_with_3_on_a_collapse_only_where_that_is_asked_for(data, tmp_path, capsys):
    n_nodes = len(data.spec.knowledge_graph.node_id)
    ckpt = saved(tmp_path, data, torch.ones(n_nodes, 3))
    given = composed("embed", ckpt, tmp_path / "e.csv", "held_out_links=false")
    embed_verb.main(given)
    shown = capsys.readouterr().out
    assert "collapsed: all 3 node types. Compound: all vectors are one among 50 nodes" in shown
    given.fail_on_collapse = True
    with pytest.raises(SystemExit) as left:
        embed_verb.main(given)
    assert left.value.code == 3
    assert len(pd.read_csv(tmp_path / "e.csv")) == n_nodes


def test_embed_refuses_sets_of_genes_for_a_model_of_nodes(data, tmp_path):
    ckpt = saved(tmp_path, data)
    with pytest.raises(InputError, match="perturbations=pairs.csv names sets of genes, but Dots embeds the nodes"):
        embed_verb.embed(composed("embed", ckpt, tmp_path / "e.h5ad", "perturbations=pairs.csv"))
    with pytest.raises(InputError, match="out=.*e.txt: the name must end in .h5ad, .parquet, .csv or .tsv"):
        embed_verb.embed(composed("embed", ckpt, tmp_path / "e.txt"))


def test_predict_ranks_the_partners_of_a_node_and_marks_every_known_link(data, tmp_path):
    record, ckpt = data.record_whole, saved(tmp_path, data)
    source = record.node_id[record.source_index[record.positive & (data.split.part == "test")][0]]
    table = predict(composed("predict", ckpt, tmp_path / "r.csv", f"source={source}", "top=null"))
    known = record.positive & (record.node_id[record.source_index] == source)
    part = dict(zip(record.node_id[record.target_index[known]], data.split.part[known], strict=True))
    assert len(table) == 30
    run = tc.load(ckpt, trust=["typed_toy"])
    pd.testing.assert_frame_equal(run.rank(source=source, top=None), table)
    with pytest.raises(InputError, match="rank names one node"):
        run.rank()
    assert table["known"].tolist() == [part.get(name, "") for name in table["target"]]
    assert "test" in set(table["known"])
    assert table["score"].is_monotonic_decreasing
    written = pd.read_csv(tmp_path / "r.csv", keep_default_na=False)
    assert written["target_name"].tolist() == table["target_name"].tolist()
    alone = predict(composed("predict", ckpt, tmp_path / "r.csv", f"source={source}", "held_out_links=false"))
    assert set(alone["known"]) <= {"train", ""}
    assert alone["target"].tolist() == table["target"].tolist()[:20]


def test_links_that_changed_since_training_mark_and_judge_nothing_unless_that_is_allowed(data, tmp_path, monkeypatch):
    from torchcell.knowledge_graph import simulate

    record, ckpt = data.record_whole, saved(tmp_path, data)
    source = record.node_id[record.source_index[record.positive & (data.split.part == "test")][0]]
    original = simulate.simulated_links

    @functools.wraps(original)
    def one_edge_less(**known):
        found = original(**known)
        of_another = np.flatnonzero(found.graph.edge_type == "GiG")
        return replace(found, graph=found.graph.subset(np.delete(np.arange(len(found.graph)), of_another[0])))

    monkeypatch.setattr(simulate, "simulated_links", configurable(one_edge_less))
    ask = composed("predict", ckpt, tmp_path / "r.csv", f"source={source}")
    with pytest.raises(InputError, match="was trained on other data: samples differ"):
        predict(ask)
    assert not (tmp_path / "r.csv").exists()
    with pytest.raises(InputError, match="was trained on other data: samples differ"):
        embed_verb.main(composed("embed", ckpt, tmp_path / "e.csv"))
    for given in ("held_out_links=false", "data_changed=allow"):
        assert len(predict(composed("predict", ckpt, tmp_path / "r.csv", f"source={source}", given))) == 20


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "perturbations=FILE; or, of a knowledge graph, source=NODE or target=NODE"),
        (["source=a", "perturbations=b.csv"], "give one"),
        (["target='diseaes 0001'"], r"no Disease has this id or name; the nearest are \['disease 0001'"),
    ],
)
def test_predict_says_what_is_missing_or_too_much(data, tmp_path, overrides, said):
    with pytest.raises(InputError, match=said):
        predict(composed("predict", saved(tmp_path, data), tmp_path / "r.csv", *overrides))
