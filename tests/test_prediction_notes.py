"""Predictions for what a model never met say so: a column ``note`` in every task, and one line that counts them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from small_runs import CELLS, GENE_SETS, MODELS, RESPONSE, SCREEN, composed

from torchcell.core.datamodule import RecordDataModule
from torchcell.core.prediction_notes import joined, summary
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
from torchcell.knowledge_graph.typed_graph import TypedGraph
from torchcell.predict import predict
from torchcell.screen.datamodule import PerturbationDataModule
from torchcell.screen.record import KINDS
from torchcell.training import build as assemble
from torchcell.training import checkpoint
from torchcell.training.entry import conf_dir
from torchcell.training.prior import fit_prior

SPLIT = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


def saved(folder: Path, *overrides: str) -> tuple[Path, RecordDataModule]:
    """The checkpoint of a fresh model, and its data."""
    cfg = composed(*overrides)
    data = assemble.datamodule(cfg)
    prior, spec = fit_prior(data, cfg)
    state = checkpoint.built(cfg.model, spec).state_dict()
    about = {checkpoint.KEY: checkpoint.describe(spec, cfg, prior)}
    torch.save({"state_dict": state, "epoch": 0, **about}, folder / "best.ckpt")
    return folder / "best.ckpt", data


def ask(ckpt: Path, table: pd.DataFrame | None, *overrides: str, out: str = "out.csv") -> pd.DataFrame:
    """What ``predict`` wrote."""
    folder, given = ckpt.parent, []
    if table is not None:
        table.to_csv(folder / "asked.csv", index=False)
        given = [f"perturbations='{folder / 'asked.csv'}'"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        predict(compose("predict", [f"ckpt='{ckpt}'", f"out='{folder / out}'", *given, *overrides]))
    if out.endswith(".csv"):
        return pd.read_csv(folder / out, keep_default_na=False)
    return anndata.read_h5ad(folder / out).obs


def test_a_screen_tells_of_new_sizes_genes_and_types(tmp_path, capsys):
    ckpt, data = saved(tmp_path, *MODELS["dango"], "data.record.triple_share=0")
    trained = [data.spec.genes[i] for i in data.spec.trained_genes.tolist()]
    new = next(gene for gene in data.spec.genes if gene not in trained)
    a, b, c = trained[:3]
    table = pd.DataFrame({"genes": [f"{a}|{b}", f"{a}|{b}|{c}", f"{a}|{new}", new]})
    found = ask(ckpt, table)
    assert found["note"].tolist() == [
        "",
        "set of 3, trained on sets of 2",
        f"no training sample of {new}",
        f"set of 1, trained on sets of 2; no training sample of {new}",
    ]
    assert list(found)[-1] == "note"
    assert (
        "3 of 4 predictions carry a note: set of another size (2), gene without training samples (2)"
    ) in capsys.readouterr().out
    assert ask(ckpt, table[:1])["note"].tolist() == [""]
    assert "carry a note" not in capsys.readouterr().out


@pytest.mark.parametrize("reads", [True, False])
def test_levels_that_are_not_read_or_out_of_range_are_told(make_screen, reads):
    level = np.array([np.nan, 2.0, 0.5] * 20, dtype=np.float32)
    data = PerturbationDataModule(make_screen([f"A|B|C{i}" for i in range(20)], level=level), SPLIT)
    assert data.spec.trained_levels == (0.5, 2.0)
    asked = np.array([1, 2, 0.5, np.nan, np.nan, np.nan, 7, 0.1, 1], dtype=np.float32)
    trained = data.spec.trained_genes.tolist()
    record = make_screen([f"A|B|{data.spec.genes[i]}" for i in trained[2:5]], level=asked)
    told = joined(data.prediction_notes(record, data.spec, SimpleNamespace(reads_levels=reads)), 3).tolist()
    unread = "levels are not read by this model"
    assert told == (["", "", "trained on levels of 0.5 to 2, not 7, 0.1"] if reads else [unread, "", unread])


def test_a_perturbation_type_that_training_did_not_have_is_told(make_screen):
    """By a model that takes any type; ours refuse what they have no weights for."""
    data = PerturbationDataModule(make_screen([f"A|B{i}" for i in range(20)]), SPLIT)
    two = [data.spec.genes[i] for i in data.spec.trained_genes.tolist()[1:3]]
    kind = np.array([KINDS.index(name) for name in ("absent", "absent", "added", "overexpressed")], dtype=np.int8)
    notes = data.prediction_notes(
        make_screen([f"A|{gene}" for gene in two], kind=kind), data.spec, SimpleNamespace(reads_levels=False)
    )
    assert joined(notes, 2).tolist() == ["", "unseen perturbation type added, overexpressed"]


def test_the_transformer_says_whether_it_reads_levels():
    for levels in (True, False):
        cfg = composed("model=cell_graph_transformer", *SCREEN, f"model.readout.levels={levels}")
        data = assemble.datamodule(cfg)
        assert instantiate(cfg.model, _partial_=True)(spec=data.spec).reads_levels is levels


@pytest.mark.parametrize("out", ["out.csv", "out.h5ad"])
def test_drug_response_tells_of_new_drugs_lines_doses_and_times(tmp_path, capsys, out):
    ckpt, data = saved(tmp_path, *RESPONSE, "model=response_mlp", "model.genes.width=8", "model.hidden=[8,8]")
    held = data.spec.molecules
    known = next(name for name, trained in zip(held.id, held.trained.tolist(), strict=True) if trained)
    other = next(name for name, trained in zip(held.id, held.trained.tolist(), strict=True) if not trained)
    time = float(data.record_whole.time[0])
    rows = [
        (known, "", "A375", 1.0, time), (other, "", "PC3", 1.0, time), ("mine", "CCO", "A375", 10.0, time),
        (known, "", "A375", 500.0, 2 * time),
    ]  # fmt: skip
    found = ask(ckpt, pd.DataFrame(rows, columns=["drug", "smiles", "cell_line", "dose_value", "time"]), out=out)
    assert found["note"].tolist() == [
        "",
        f"no training sample of {other}",
        "no training sample of mine",
        f"trained on doses of 1 to 10 µM, not 500; trained on times of {time:g} h, not {2 * time:g}",
    ]
    assert (
        "3 of 4 predictions carry a note: drug without training samples (2), dose outside the trained range (1), "
        "time outside the trained range (1)"
    ) in capsys.readouterr().out


def test_a_cell_line_with_a_control_of_its_own_is_told_to_be_unseen(tmp_path):
    _, data = saved(tmp_path, *RESPONSE, "model=response_mlp", "model.genes.width=8", "model.hidden=[8,8]")
    spec, record = data.spec, data.record("train").subset(np.arange(2))
    strange = dataclasses.replace(record, cell_line=np.array(["A375", "K562"]))
    notes = data.prediction_notes(strange, spec, None)
    assert joined(notes, 2).tolist() == ["", "no training sample of cell line K562"]


def test_cells_tell_of_genes_that_were_never_perturbed_new_combinations_and_groups(tmp_path, capsys):
    ckpt, data = saved(tmp_path, *CELLS, *GENE_SETS, "data.record.n_doubles=0")
    trained = data.spec.trained_perturbations
    assert trained.sizes == (1,)
    a, b = trained.genes[:2]
    new = next(gene for gene in data.spec.outputs if gene not in trained.genes)
    cells = data.record_whole.cells
    controls = cells.subset(np.flatnonzero(cells.is_control))
    line = controls.covariates["cell_line"].astype(object)
    line[:5] = "K562"
    obs = pd.DataFrame({"cell_line": line.astype(str)}, index=controls.sample_id)
    anndata.AnnData(controls.counts, obs=obs, var=pd.DataFrame(index=controls.genes)).write_h5ad(tmp_path / "c.h5ad")
    seen = data.spec.groups[0]
    table = pd.DataFrame({"perturbation": [a, new, f"{a}+{b}", a], "cell_line": [seen, seen, seen, "K562"]})
    found = ask(ckpt, table, f"controls='{tmp_path / 'c.h5ad'}'", out="out.h5ad")
    assert found["note"].tolist() == [
        "",
        f"never perturbed in training: {new}",
        "combination of 2, trained on combinations of 1",
        "no training cells of K562",
    ]
    assert (
        "3 of 4 predictions carry a note: gene never perturbed in training (1), combination of another size (1), "
        "unseen group (1)"
    ) in capsys.readouterr().out


def lonely(spec: KnowledgeGraphSpec, node: str) -> KnowledgeGraphSpec:
    """The spec without a node's edges in its graph."""
    graph = TypedGraph.from_plain(spec.knowledge_graph)
    at, edges = graph.node_id.tolist().index(node), {}
    for name in graph.edge_types:
        source, target = (end.numpy() for end in graph.edges(name))
        kept = (source != at) & (target != at)
        edges[name] = source[kept], target[kept]
    about = (graph.node_id, graph.node_name, graph.node_types, graph.bounds, graph.ends, edges, graph.symmetric)
    return dataclasses.replace(spec, knowledge_graph=TypedGraph(*about, graph.from_record).to_plain())


def test_links_tell_of_nodes_without_edges_and_of_edge_types_that_were_not_trained(tmp_path, capsys):
    ckpt, _ = saved(tmp_path, *MODELS["hgt_embedder"])
    content = torch.load(ckpt, weights_only=True)
    spec = KnowledgeGraphSpec.from_plain(content[checkpoint.KEY]["spec"])
    ids = spec.knowledge_graph.node_id
    compounds, disease = [name for name in ids if name.startswith("Compound")], next(n for n in ids if "Disease" in n)
    spec = lonely(spec, compounds[3])
    content[checkpoint.KEY]["spec"] = spec.to_plain()
    content["state_dict"] = checkpoint.built(composed(*MODELS["hgt_embedder"]).model, spec).state_dict()
    torch.save(content, ckpt)
    found = ask(ckpt, pd.DataFrame({"source": compounds[2:4], "target": [disease, disease]}))
    assert list(found) == ["sample_id", "edge_type", "source", "source_name", "target", "target_name", "score", "note"]
    assert found["note"].tolist() == ["", f"no edge in the graph of training: {compounds[3]}"]
    assert "1 of 2 predictions carry a note: node without an edge (1)" in capsys.readouterr().out

    ranked = ask(ckpt, None, f"target='{disease}'", "top=null", "held_out_links=false").set_index("source")
    assert ranked.loc[compounds[3], "note"] == f"no edge in the graph of training: {compounds[3]}"
    n_noted = (ranked["note"] != "").sum()
    assert 1 <= n_noted < 20
    assert ranked.loc[compounds[2:4], "score"].tolist() == pytest.approx(found["score"].tolist(), abs=1e-6)
    assert f"{n_noted} of 40 ranked links carry a note" in capsys.readouterr().out
    other = ask(ckpt, None, f"source='{compounds[2]}'", "edge_type=CbG", "held_out_links=false")
    assert set(other["note"]) >= {"not trained to predict CbG"}


def test_notes_are_joined_and_counted():
    notes = {"one": ["a", "", "b"], "two": ["c", "", ""], "three": ["", "", ""]}
    assert joined(notes, 3).tolist() == ["a; c", "", "b"]
    assert summary(notes, 3) == "2 of 3 predictions carry a note: one (2), two (1)"
    assert joined({}, 2).tolist() == ["", ""]
    assert summary({}, 2) == ""
