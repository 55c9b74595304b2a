"""embed writes what the model says, under the names of sets and genes, and maps that a seed fixes."""

from __future__ import annotations

import functools
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from torchcell.core.split import Split
from torchcell.embed import embed
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.io.gene_features import GeneFeatures
from torchcell.knowledge_graph.embed import validate
from torchcell.nn.ragged import segment_mean
from torchcell.screen.datamodule import PerturbationDataModule
from torchcell.train import Trained, train
from torchcell.training import checkpoint
from torchcell.training.entry import conf_dir

SMALL = [
    "data.record.n_genes=120",
    "data.record.n_sets=400",
    "data.record.n_queries=16",
    "data.record.n_arrays=60",
    "model.encoder.dim=16",
    "model.readout.heads=1",
    "trainer.max_epochs=1",
    "evaluation.n_boot=20",
    "baselines=none",
]
SPLIT = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}
NARROW = {"_target_": "torchcell.screen.models.perturbed_cell_gnn.options.EncoderOptions", "dim": 8}
GNN = {"_target_": "torchcell.screen.models.perturbed_cell_gnn.model.PerturbedCellGNN", "encoder": NARROW}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Trained:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return train(compose("config", [*SMALL, f"paths.runs={tmp_path_factory.mktemp('runs')}"]))


def request(ckpt: Path, out: Path, *overrides: str) -> anndata.AnnData:
    """Embed, and read back what was written."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        given = [f"ckpt='{ckpt}'", f"out='{out}'", "batch_size=64", "trust=[linear_screen, feature_screen]"]
        cfg = compose("embed", [*given, "umap=false", *overrides])
    embed(cfg)
    return anndata.read_h5ad(out)


def untrained(folder: Path, pairs, ring, model: dict, columns: tuple[str, ...] = ()) -> Path:
    """A checkpoint of a fresh model on ``pairs``, whose data can't be rebuilt from its config."""
    graph = CellGraph.from_networks(ring)
    table = np.random.default_rng(0).normal(size=(len(graph), len(columns))).astype(np.float32)
    features = GeneFeatures(graph.genes, columns, table) if columns else None
    spec = PerturbationDataModule(pairs, SPLIT, graph, features=features).spec
    data = {"_target_": "torchcell.screen.datamodule.PerturbationDataModule"}
    config = OmegaConf.create({"model": model, "data": data})
    state = instantiate(config.model, _partial_=True)(spec=spec).state_dict()
    about = {checkpoint.KEY: checkpoint.describe(spec, config)}
    torch.save({"state_dict": state, "epoch": 0, **about}, folder / "best.ckpt")
    return folder / "best.ckpt"


def asked(folder: Path, table: pd.DataFrame) -> str:
    table.to_csv(folder / "asked.csv", index=False)
    return f"perturbations='{folder / 'asked.csv'}'"


def test_the_runs_own_sets_come_with_their_names_parts_and_phenotypes(run, tmp_path):
    table = request(run.folder.best, tmp_path / "e.h5ad")
    data, record = run.datamodule, run.datamodule.record_whole
    assert table.obs_names.tolist() == record.sample_id.tolist()
    assert table.obs["genes"].tolist() == ["|".join(genes) for genes in record.sets()]
    assert table.obs["part"].tolist() == data.split.part.tolist()
    np.testing.assert_array_equal(table.obs["gene_interaction"], record.phenotype[:, 0])
    assert table.var_names.tolist() == [f"members_{i}" for i in range(16)]
    assert table.X.dtype == np.float32
    with torch.no_grad():
        expected = run.model.eval().set_embeddings(data.packed[torch.arange(len(record))])["members"]
    np.testing.assert_allclose(table.X, expected, atol=1e-6)
    assert table.obsm["X_pca"].shape == (len(record), 16)
    assert table.uns["pca"]["variance_ratio"].sum() == pytest.approx(1)
    assert table.uns["split_hash"] == Split.load(run.folder.path / "split.parquet").hash
    assert Path(table.uns["checkpoint"]) == run.folder.best.resolve()


def test_what_embed_wrote_is_validated_sets_after_centering_as_they_share_the_cell(run, tmp_path, capsys):
    request(run.folder.best, tmp_path / "e.h5ad")
    capsys.readouterr()
    assert not validate(tmp_path / "e.h5ad", centered=None)
    assert "judged after centering" in capsys.readouterr().out
    assert not validate(tmp_path / "e_genes.h5ad")
    assert "judged after centering" not in capsys.readouterr().out


def test_one_part_alone_is_embedded_and_predicted_as_the_run_did(run, tmp_path):
    table = request(run.folder.best, tmp_path / "e.h5ad", "part=test")
    scored = pd.read_parquet(run.folder.path / "predictions.parquet")
    assert table.obs_names.tolist() == scored["sample_id"].tolist()
    np.testing.assert_allclose(table.obs["predicted gene_interaction"], scored["Dango"], atol=1e-6)


def test_genes_stand_in_a_file_of_their_own(run, tmp_path):
    request(run.folder.best, tmp_path / "e.h5ad", "part=val")
    genes = anndata.read_h5ad(tmp_path / "e_genes.h5ad")
    assert tuple(genes.obs_names) == run.datamodule.spec.genes
    with torch.no_grad():
        np.testing.assert_allclose(genes.X, run.model.eval().gene_embeddings()["genes"], atol=1e-6)
    named = {gene for members in run.datamodule.record("train").sets() for gene in members}
    assert set(genes.obs_names[genes.obs["trained"]]) == named
    assert (tmp_path / "e_pca.png").stat().st_size > 0
    assert not (tmp_path / "e_umap.png").exists()
    assert not list(tmp_path.glob(".*part*")), "no half-written file is left"


def test_a_users_sets_are_matched_by_name_and_keep_what_was_measured(run, tmp_path):
    own = request(run.folder.best, tmp_path / "own.h5ad")
    rows = [5, 3, 9, 0, 2, 7]
    genes = ["|".join(reversed(own.obs["genes"].iloc[i].split("|"))) for i in rows]
    listed = pd.DataFrame({"sample_id": list("abcdef"), "genes": genes, "gene_interaction": range(6), "note": "x"})
    table = request(run.folder.best, tmp_path / "e.h5ad", asked(tmp_path, listed))
    assert table.obs_names.tolist() == list("abcdef")
    assert table.obs["genes"].tolist() == genes
    assert table.obs["gene_interaction"].tolist() == list(range(6))
    assert "part" not in table.obs
    np.testing.assert_allclose(table.X, own.X[rows], atol=1e-6)


@pytest.mark.long
def test_umap_is_the_same_for_the_same_seed_and_leaves_out_what_is_not_drawn(run, tmp_path):
    """The one test that runs UMAP, which compiles for some ten seconds."""
    first, again = (
        request(run.folder.best, tmp_path / f"{name}.h5ad", "umap=true", "max_map=60", "part=val", "seed=3")
        for name in ("a", "b")
    )
    xy = first.obsm["X_umap"]
    assert np.isfinite(xy).all(1).sum() == 60
    assert np.isnan(xy).all(1).sum() == len(first) - 60
    np.testing.assert_array_equal(xy, again.obsm["X_umap"])
    assert (tmp_path / "a_umap.png").stat().st_size > 0


def test_further_latents_and_the_cell_itself_are_kept(pairs, ring, tmp_path):
    ckpt = untrained(tmp_path, pairs, ring, GNN)
    listed = pd.DataFrame({"genes": ["A01|A02", "Q03", "A05|A04|A03", "Q01|A02"]})
    table = request(ckpt, tmp_path / "e.h5ad", asked(tmp_path, listed))
    assert table.uns["latent"] == "difference"
    assert table.var_names[0] == "difference_0"
    assert table.obsm["members"].shape == (4, 8)
    genes = anndata.read_h5ad(tmp_path / "e_genes.h5ad")
    np.testing.assert_allclose(table.uns["cell"]["wild_type"], genes.X.sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(table.obsm["members"][1], genes["Q03"].X[0], atol=1e-6)


def test_added_genes_are_embedded_in_sets_and_among_the_genes(pairs, ring, tmp_path, monkeypatch):
    from feature_screen import FeatureScreen

    def mean(self, batch):
        return {"mean": segment_mean(self.values[batch.gene], batch.ptr)}

    monkeypatch.setattr(FeatureScreen, "set_embeddings", mean)
    monkeypatch.setattr(FeatureScreen, "gene_embeddings", lambda self: {"features": self.values})
    ckpt = untrained(tmp_path, pairs, ring, {"_target_": "feature_screen.FeatureScreen"}, ("x", "y"))
    (tmp_path / "new.csv").write_text("y,gene,x\n30,N1,10\n50,N2,40\n")
    sets = ["A01", "A02", "N1", "N2|N1", "N1|A01"]
    listed = asked(tmp_path, pd.DataFrame({"genes": sets}))
    with pytest.raises(InputError, match="'N1', 'N2'"):
        request(ckpt, tmp_path / "e.h5ad", listed)
    table = request(ckpt, tmp_path / "e.h5ad", listed, f"added_genes='{tmp_path / 'new.csv'}'")
    np.testing.assert_array_equal(table.X[2:4], [[10, 30], [25, 40]])
    np.testing.assert_allclose(table.X[4], (table.X[0] + table.X[2]) / 2)
    genes = anndata.read_h5ad(tmp_path / "e_genes.h5ad")
    assert genes.obs_names.tolist() == [*checkpoint.load(ckpt).spec.genes, "N1", "N2"]
    np.testing.assert_array_equal(genes[["N1", "N2"]].X, [[10, 30], [40, 50]])
    assert not genes.obs.loc[["N1", "N2"], "trained"].any()


def test_genes_added_to_a_model_that_knows_none_but_its_own_are_refused(run, tmp_path):
    (tmp_path / "new.csv").write_text("gene,x\nN1,1\n")
    with pytest.raises(InputError, match="Dango knows genes by name only and takes no added ones"):
        request(run.folder.best, tmp_path / "e.h5ad", f"added_genes='{tmp_path / 'new.csv'}'")


def test_a_model_without_latents_is_refused_in_one_sentence(pairs, ring, tmp_path):
    ckpt = untrained(tmp_path, pairs, ring, {"_target_": "linear_screen.AdditiveScreen"})
    with pytest.raises(InputError, match="AdditiveScreen has no latent of a set to write"):
        request(ckpt, tmp_path / "e.h5ad", asked(tmp_path, pd.DataFrame({"genes": ["A01"]})))
    assert not (tmp_path / "e.h5ad").exists()


def test_unknown_genes_are_named_or_dropped_and_counted(run, tmp_path, capsys):
    known = run.datamodule.spec.genes
    listed = asked(tmp_path, pd.DataFrame({"genes": [f"{known[0]}|{known[1]}", "nobody", known[2]]}))
    with pytest.raises(InputError, match=r"1 gene\(s\).*'nobody'.*unknown_genes=drop"):
        request(run.folder.best, tmp_path / "e.h5ad", listed)
    assert len(request(run.folder.best, tmp_path / "e.h5ad", listed, "unknown_genes=drop")) == 2
    assert "left out: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["out=e.csv"], "out=e.csv: the name must end in .h5ad$"),
        (["fail_on_collapse=true"], "judges nodes of a knowledge graph, and Dango has none"),
        (["part=tset"], "no part 'tset'; the parts are"),
        (["part=unused"], "part=unused: the split has no sample there"),
        (["part=test", "perturbations=sets.csv"], "part=test is of the run's own sets.*give one of the two"),
        (["max_map=2"], "max_map=2: a map needs at least 5 sets"),
    ],
)
def test_requests_that_make_no_sense_are_refused(run, tmp_path, overrides, said):
    with pytest.raises(InputError, match=said):
        request(run.folder.best, tmp_path / "e.h5ad", *overrides)


def test_data_that_changed_since_the_run_are_refused(run, tmp_path, monkeypatch):
    from torchcell.screen import simulate

    original = simulate.simulated_screen
    changed = functools.wraps(original)(lambda **known: original(**known).subset(np.arange(350)))
    monkeypatch.setattr(simulate, "simulated_screen", configurable(changed))
    with pytest.raises(InputError, match="was trained on other data: split, samples differ"):
        request(run.folder.best, tmp_path / "e.h5ad")


def test_the_report_maps_the_scored_part_and_leaves_the_model_as_it_was(run, monkeypatch):
    from torchcell.training import embed as embedding

    assert (run.folder.path / "figures" / "latent_maps.png").stat().st_size > 0
    assert "Embeddings of the samples" in (run.folder.path / "report.html").read_text()
    results = run.scored.results
    run.model.train()
    monkeypatch.setattr(embedding, "MOST_IN_REPORT", 30)
    (section,) = embedding.report_latents(run.model, run.datamodule, results, "cpu")
    assert run.model.training
    assert f"30 of {len(results)} samples, chosen at random, of the test part" in section.text
    again = embedding.report_latents(run.model, run.datamodule, results, "cpu")[0]
    one, other = (np.asarray(each.figure.axes[0].collections[1].get_offsets()) for each in (section, again))
    np.testing.assert_array_equal(one, other)


def test_every_key_of_the_config_is_read():
    import inspect

    import torchcell.embed

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        keys = list(OmegaConf.to_container(compose("embed"), resolve=False))
    source = inspect.getsource(torchcell.embed)
    assert not [key for key in keys if f"cfg.{key}" not in source]
