"""The gene-set transformer as the config builds it from data: sparse attention, features of what is not measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from torchcell.cells.datamodule import CellSetDataModule
from torchcell.cells.models.gene_set_transformer.model import GeneSetTransformer
from torchcell.cells.simulate import simulate_cells
from torchcell.io.errors import InputError
from torchcell.training import build as assemble
from torchcell.training import checkpoint
from torchcell.training.entry import conf_dir

SMALL = ["n_genes=40", "n_regulators=20", "n_doubles=4", "cells_per_condition=8"]


def built(*overrides: str) -> tuple[GeneSetTransformer, CellSetDataModule]:
    shrunk = [f"data.record.{size}" for size in SMALL]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", ["+experiment=simulated_perturbseq", *shrunk, *overrides])
    data = assemble.datamodule(cfg)
    torch.manual_seed(0)
    return checkpoint.built(cfg.model, data.spec), data


def test_the_sparse_model_sees_the_lists_that_the_data_make_of_the_graph():
    model, data = built(
        "model=gene_set_transformer_sparse", "data.genes.neighbors.k=6", "data.genes.neighbors.correlated=2"
    )
    assert model.sparse
    assert torch.equal(model.neighbor_GK, data.spec.neighbors)
    joined = (data.graph.scipy("interaction") + data.graph.scipy("regulatory")).toarray()
    linked = (joined + joined.T)[torch.arange(40)[:, None], model.neighbor_GK] > 0
    assert linked[:20, 0].mean() > 0.9  # a regulator looks at its network first
    batch = next(iter(data.train_dataloader()))
    loss = torch.stack(list(model.losses(batch, model(batch)).values())).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_selected_genes_and_unmeasured_targets_have_features_and_lists_by_name():
    model, data = built("data.n_genes=12", "model.encoder.attention=neighbors", "data.genes.neighbors.k=4")
    assert model.neighbor_GK.shape == (12, 4)
    assert int(model.neighbor_GK.max()) < 12
    unmeasured = set(data.genes) - set(data.spec.outputs)
    assert unmeasured
    whole = built()[1].spec.gene_features
    own = data.spec.gene_features
    assert own.columns == whole.columns
    assert (own.aligned(sorted(unmeasured)) == whole.aligned(sorted(unmeasured))).all()


def test_the_line_for_your_own_cells_in_the_docs_reads_an_h5ad(tmp_path: Path):
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "own-cells.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"torchcell\.train (\+.*data=cells [^#\n]*)", text)
    cells = simulate_cells().cells.to_anndata()
    cells.obs["perturbation"] = cells.obs["perturbation"].astype(str).replace("control", "ctrl")
    cells.write_h5ad(tmp_path / "mine.h5ad")
    line = line.replace("mine.h5ad", str(tmp_path / "mine.h5ad"))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert compose("config", line.split()).graph == compose("config", ["graph=hetionet"]).graph
        cfg = compose("config", [*line.split(), "graph=none", "data.genes.features=null", "split.n_folds=3"])
    data = assemble.datamodule(cfg)
    assert len(data.record_whole) == 8
    model = checkpoint.built(cfg.model, data.spec)
    assert torch.isfinite(model(next(iter(data.val_dataloader())))).all()


def test_cells_of_a_distribution_and_means_alone_are_not_asked_for_at_once():
    with pytest.raises(
        InputError, match="model.distribution=true .*data.sets.pseudobulk=true trains on means; set one"
    ):
        built("data.sets.pseudobulk=true", "model.distribution=true")
    assert built("data.sets.pseudobulk=true")[0].distribution is False
