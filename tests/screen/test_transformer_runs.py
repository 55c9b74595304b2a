"""Whole runs of the cell graph transformer: its start happens once, a run resumes, goes to other cells, is embedded."""

from __future__ import annotations

import functools
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from model_options import with_options
from omegaconf import DictConfig

from tests.core.test_base import RANDOM, fit
from tests.test_train import interrupt
from torchcell.embed import embed
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.datamodule import PerturbationDataModule
from torchcell.screen.models.cell_graph_transformer.model import CellGraphTransformer
from torchcell.screen.models.cell_graph_transformer.options import EncoderOptions, PairOptions, ReadoutOptions
from torchcell.train import train
from torchcell.training.entry import conf_dir

FAST = functools.partial(torch.optim.AdamW, lr=1e-3)
SMALL = (
    "model=cell_graph_transformer",
    "data.record.n_genes=120",
    "data.record.n_sets=400",
    "data.record.n_queries=16",
    "data.record.n_arrays=60",
    "data.batch_size=128",
    "model.encoder.dim=32",
    "model.encoder.heads=2",
    "model.encoder.layers=1",
    "model.graph_loss.head_assignments={physical: [[0, 0]]}",
    "trainer.max_epochs=3",
    "evaluation.n_boot=20",
    "baselines=none",
)


def config(folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", [*SMALL, f"paths.runs={folder}", *overrides])


@pytest.fixture
def module(pairs, ring) -> PerturbationDataModule:
    return PerturbationDataModule(pairs, RANDOM, CellGraph.from_networks(ring), batch_size=256)


def make(module: PerturbationDataModule, **choices) -> CellGraphTransformer:
    torch.manual_seed(0)
    pairs = PairOptions(width=8, start="least_squares")
    given = {
        "encoder": EncoderOptions(dim=32, heads=2, layers=1),
        "readout": ReadoutOptions(pairs=pairs),
        "optimizer": FAST,
    }
    return CellGraphTransformer(module.spec, **with_options(CellGraphTransformer, given | choices))


def test_the_start_happens_once_in_a_models_life(module, monkeypatch):
    starts = []
    original = CellGraphTransformer.start_pairs
    monkeypatch.setattr(
        CellGraphTransformer, "start_pairs", lambda self, train: starts.append(len(train)) or original(self, train)
    )
    model = make(module)
    fresh = model.graph_losses.recalls(model.eval().wild_type().cell.scores)
    fit(model.train(), module)
    assert starts == [len(module.split.index("train"))], "the training part alone"
    assert model.recall_before == [float(recall) for recall in fresh]
    fit(model, module)
    again = make(module)
    again.load_state_dict(model.state_dict())
    fit(again, module)
    assert len(starts) == 1


def test_without_a_least_squares_start_nothing_is_factorized(module, monkeypatch):
    monkeypatch.setattr(CellGraphTransformer, "start_pairs", lambda *_: pytest.fail("not asked for"))
    fit(make(module, readout__pairs__start="random"), module)
    fit(make(module, readout__pairs__start="random", readout__pairs__width=0), module)


def test_the_start_reads_no_value_but_those_of_training(pairs, ring):
    graph = CellGraph.from_networks(ring)
    tables = []
    for poison in (0.0, 100.0):
        values = pairs.phenotype.copy()
        held = PerturbationDataModule(pairs, RANDOM, graph).split
        for part in ("val", "test"):
            values[held.index(part)] += poison
        screen = pairs.__class__(**{**vars(pairs), "phenotype": values})
        module = PerturbationDataModule(screen, RANDOM, graph, batch_size=256)
        model = make(module, optimizer=functools.partial(torch.optim.SGD, lr=0.0))
        fit(model, module)
        tables.append(model.pairs.vectors.table.weight)
    assert torch.equal(*tables)
    assert tables[0].abs().sum() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_start_takes_samples_from_the_cpu_where_the_weights_are_on_the_gpu_already(module):
    """Lightning moves the model before the fit begins, and the packed samples stay where they are."""
    model = make(module).cuda()
    model.start_pairs(module.packed[torch.from_numpy(module.split.index("train"))])
    same = make(module)
    same.start_pairs(module.packed[torch.from_numpy(module.split.index("train"))])
    assert torch.equal(model.pairs.vectors.table.weight.cpu(), same.pairs.vectors.table.weight)


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch):
    """With dropout, sampled rows, genes marked as cold and a least-squares start that must not happen twice."""
    real = ("model.graph_loss.rows=20", "model.graph_loss.negatives=16", "model.embedding.imputation.neighbors=5", "model.embedding.imputation.untrained_rate=0.2",
            "model.readout.pairs.width=8", "model.readout.pairs.start=least_squares", "model.encoder.gradient_checkpointing=true", "trainer.warmup_steps=2")  # fmt: skip
    whole = train(config(tmp_path / "whole", *real))
    cfg = config(tmp_path / "parts", *real)
    interrupt(monkeypatch, cfg, epoch=2)
    cfg.ckpt_path = "last"
    resumed = train(cfg)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert "What memory options cost and save" in (whole.folder.path / "report.html").read_text()
    # Not only the best epoch's weights, which may be older than the interruption: each epoch to the last bit.
    history, again = (pd.read_csv(run.folder.path / "history.csv") for run in (whole, resumed))
    assert history["epoch"].tolist() == [0, 1, 2]
    columns = ["epoch", "train/loss", "val/score", "val_sample/edge_recall_physical", "train/share/graph_physical"]
    pd.testing.assert_frame_equal(history[columns], again[columns], check_exact=True)
    (section,), (later,) = (run.model.report_sections(history) for run in (whole, resumed))
    assert section.table["share of loss"].tolist() == history["train/share/graph_physical"].tolist()[-1:]
    assert 0 < section.table["edge recall before"].item() < 1
    assert np.isnan(later.table["edge recall before"].item()), "a run that goes on never saw the untrained heads"
    assert section.table["edge recall after"].item() == later.table["edge recall after"].item()
    assert whole.scored is not None
    assert resumed.scored is not None
    pd.testing.assert_frame_equal(whole.scored.evaluation.table, resumed.scored.evaluation.table)


def table_of(folder: Path, columns: tuple[str, ...]) -> str:
    """Features of the genes of both organisms, as a user's file."""
    genes = [f"G{i + 1:04d}" for i in range(132)]
    values = np.random.default_rng(0).normal(size=(len(genes), len(columns)))
    path = folder / f"{'-'.join(columns)}.csv"
    pd.DataFrame(values, columns=list(columns)).assign(gene=genes).to_csv(path, index=False)
    return f"data.features={{_target_: torchcell.graph.features.table_features, _partial_: true, path: '{path}'}}"


def test_weights_go_on_with_another_organism_and_sets_and_genes_are_embedded(tmp_path):
    xyz = table_of(tmp_path, ("x", "y", "z"))
    first = train(config(tmp_path, xyz, "model.embedding.free=false", "trainer.max_epochs=1"))
    other = ("data.record.n_genes=132", "data.record.seed=1", f"init_from={first.folder.best}")
    ties = "++model.graph_loss.head_assignments.pathway=[[0, 1]]"  # the other cell may have other networks
    still = (*other, ties, "model.embedding.free=false", "model.optimizer.lr=0.0", "trainer.max_epochs=1")
    tuned = train(config(tmp_path, xyz, *still))
    assert len(tuned.model.spec.genes) == 132
    for (name, a), b in zip(first.model.named_parameters(), tuned.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(InputError, match="gene features differ"):
        train(config(tmp_path, table_of(tmp_path, ("x", "w")), *still))
    with pytest.raises(InputError, match="genes differ"):
        train(config(tmp_path, xyz, *other))

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        out = tmp_path / "latents.h5ad"
        embed(compose("embed", [f"ckpt='{first.folder.best}'", f"out='{out}'", "umap=false"]))
    table, genes = anndata.read_h5ad(out), anndata.read_h5ad(tmp_path / "latents_genes.h5ad")
    assert table.uns["latent"] == "z_S"
    assert table.shape == (400, 32)
    assert table.uns["cell"]["h_CLS"].shape == (32,)
    assert genes.shape == (120, 32)
    assert genes.obsm["features"].columns.tolist() == ["x", "y", "z"], "a pattern for a file of added genes"
    assert tuple(genes.obs_names) == first.datamodule.spec.genes
    with torch.no_grad():
        np.testing.assert_allclose(genes.X, first.model.eval().gene_embeddings()["tokens"], atol=1e-6)
