"""Every model and option takes a step and is scored under bfloat16 and float16 autocast as in 32 bits.

``+experiment=simulated_hgt trainer.precision=bf16-mixed`` once died in its first step, as did all experiments with
links scored by walks: autocast makes half-precision products, which ``index_add`` does not add to 32 bits. No test
trained a whole model in half precision, so other options could die, or overflow float16, as well. The files of
``conf/model`` as they stand in bfloat16 are a part of the contract, see ``test_model_contract``; this is the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from model_contract import small_run
from omegaconf import DictConfig, OmegaConf
from small_runs import CELLS, GENE_SETS, GNN, MODELS, NARROW, RESPONSE, SCREEN, built, composed

from torchcell.core.datamodule import RecordDataModule
from torchcell.embed import embed
from torchcell.evaluate import evaluate
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.network import GeneRules, Network
from torchcell.io.errors import InputError
from torchcell.train import train
from torchcell.training import build as assemble
from torchcell.training.entry import conf_dir

HGT = MODELS["hgt_embedder"]
FEW = ("data.batch_size=8", "data.eval_batch_size=4")
CGT = (
    "model=cell_graph_transformer", *SCREEN, "model.encoder.dim=80", "model.encoder.heads=5", "model.encoder.layers=1",
)  # fmt: skip
FEATURES = (
    "+data.features._target_=torchcell.graph.features.network_features", "+data.features._partial_=true",
    "+data.features.spectral=4", "+data.features.terms=0",
)  # fmt: skip
SMALL_HGT = (
    "model.encoder.embedding_dim=16",
    "model.encoder.dim=16",
    "model.encoder.heads=1",
    "model.sampling.edges=50",
)
CONSTANT = "torchcell.knowledge_graph.models.hgt_embedder.model.ConstantInputHGT"
FILES: dict[str, tuple[str, ...]] = {
    "additive_latent": MODELS["additive_latent"],
    "cell_graph_transformer": CGT,
    "chemoe": MODELS["chemoe"],
    "chemoe_graph": MODELS["chemoe_graph"],
    "chemoe_published": (*RESPONSE, "model=chemoe_published", *NARROW),
    "chemoe_small": (*RESPONSE, "model=chemoe_small", "model.genes.width=16"),
    "dango": MODELS["dango"],
    "gene_set_transformer": (*CELLS, *GENE_SETS),
    "gene_set_transformer_sparse": (*CELLS, "model=gene_set_transformer_sparse", *GENE_SETS),
    "hgt_embedder": HGT,
    "hgt_embedder_full": (*HGT, "model=hgt_embedder_full", *SMALL_HGT),
    "hgt_embedder_high_quality": (*HGT, "model=hgt_embedder_high_quality", *SMALL_HGT),
    "hgt_embedder_low_memory": (*HGT, "model=hgt_embedder_low_memory", *SMALL_HGT),
    "hgt_embedder_quick": (*HGT, "model=hgt_embedder_quick", *SMALL_HGT),
    "latent_shift": MODELS["latent_shift"],
    "pairwise_factors": (
        "model=pairwise_factors",
        "graph=none",
        *SCREEN,
        "model.encoder.dim=16",
        "model.encoder.heads=1",
        "model.readout.pairs.width=8",
    ),
    "perturbed_cell_gnn": (*GNN, *FEW),
    "perturbed_cell_gnn_index": (*GNN, *FEW, "model=perturbed_cell_gnn_index"),
    "perturbed_cell_gnn_large": (*GNN, *FEW, "model=perturbed_cell_gnn_large"),
    "response_mlp": MODELS["response_mlp"],
    "response_product": MODELS["response_product"],
}
"""Smaller runs than ``small_run`` gives, of some files of ``conf/model``."""

OPTIONS: dict[str, list[str]] = {
    "dango": [
        "model.readout.score=product model=dango_own_decoder model.encoder.residual=false model.readout.dropout=0.1",
        "+model.loss_weights._target_=torchcell.nn.losses.LinearUntilUniform "
        "+model.loss_weights.transition=0.25 ~model.loss_weights.phenotype ~model.loss_weights.reconstruction",
    ],
    "perturbed_cell_gnn": [
        "model.readout.parts=[global] model.readout.dropout=0.1",
        "model.readout.score=difference model.embedding.spectral=4 model.embedding.imputation.neighbors=5 model.embedding.imputation.untrained_rate=0.3 model.embedding.decay=1.0",
        "data.hops=1",
        "data.hops=2 model.encoder.linear_readout=false",
        *(f"model.encoder.strategy={way}" for way in ("tile", "hybrid", "delta")),
        *(f"model.encoder.strategy={way} model.encoder.linear_readout=false" for way in ("tile", "hybrid", "delta")),
        *(f"model.messages.aggregation={name}" for name in ("sage", "gin", "hgt")),
        *(f"model.messages.merge={name}" for name in ("mean", "attention", "pairwise")),
        "model.messages.degree='true'",
        "model.messages.degree=sum model.encoder.norm=none model.encoder.residual=false",
        "model.encoder.norm=batch model.encoder.strategy=tile",
        "model.encoder.norm=graph model.encoder.strategy=tile",
    ],
    "cell_graph_transformer": [
        "model.graph_loss.form=bce",
        "model.graph_loss.rows=20 model.graph_loss.negatives=30",
        "model=cell_graph_transformer_random_networks model.graph_loss.head_assignments={physical: [[0, 0]]}",
        "model=cell_graph_transformer_hard_mask",
        "model.graph_loss.weight=0 model.embedding.imputation.neighbors=0 model.readout.score=null",
        "model.encoder.gradient_checkpointing=true model.encoder.layers=2",
        "model.readout.pooling=sum model.readout.score=difference model.readout.levels=true",
        "model.readout.pooling=hyper_sagnn model.embedding.decay=1.0 model.embedding.imputation.untrained_rate=0.3",
        "model.readout.pairs.width=8 model.readout.pairs.decay=1.0",
        "model.readout.pairs.width=8 model.readout.pairs.start=least_squares model.readout.pairs.trained=false",
        " ".join(("model.embedding.free=false", *FEATURES)),
    ],
    "hgt_embedder": [
        f"model._target_={CONSTANT} model.encoder.degrees=false model.decoder.node_bias=false",
        "model.losses.links=bce model.losses.variance=true model.prior=null",
        "model.encoder.jump=true model.encoder.recompute=true",
        "model.sampling.fan_outs=[4,4] model.encoder.recompute=true",
        "model.sampling.edges=0 model.losses.similar_types=[] ~model.loss_weights.contrastive",
        "data.record.edge_types=all data.batch_size=64",
    ],
    "chemoe": [
        *(f"model.router.choice={name}" for name in ("dense", "uniform", "hash")),
        "model.prior=null model.inputs.basal=raw",
        "model.head=level model.inputs.basal=none model.inputs.dose=false",
        "model.expert.product=0 model.inputs.unknown=false",
    ],
    "chemoe_graph": ["model.atom_heads=0 model.prior=null"],
    "latent_shift": ["model.loss_weights.plate=1"],
    "response_mlp": ["model.prior=null", "model.prior_use=residual", "model.head=level"],
    "additive_latent": ["model.prior=gaussian_process", "model.head=level"],
    "gene_set_transformer": [
        "model.encoder.attention=induced model.encoder.points=4",
        "model.encoder.attention=neighbors",
        "model.encoder.gradient_checkpointing=true model.encoder.layers=2",
        "model.standardize=change",
        "model.standardize=none model.distribution=true",
        "data.sets.pseudobulk=true",
        "data.genes.features=null",
    ],
}
"""What else changes the way of the computation, by file."""

EVERY = sorted({*FILES, *(path.stem for path in (conf_dir() / "model").glob("*.yaml"))})
CASES = [(name, "") for name in EVERY] + [(name, options) for name, each in OPTIONS.items() for options in each]

PRECISIONS = {
    "bf16": lambda: MixedPrecision("bf16-mixed", "cpu"),
    # From its usual 2 ** 16 the scale falls in a run's first steps until no gradient overflows; here is one step.
    "fp16": lambda: MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=16.0)),
}


def split_options(options: str) -> list[str]:
    """Overrides in a row; blanks within braces belong to one."""
    found, depth = [""], 0
    for letter in options:
        depth += (letter in "{[") - (letter in "}]")
        if letter == " " and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [each for each in found if each]


@functools.lru_cache(maxsize=4)
def data_of(text: str) -> RecordDataModule:
    return assemble.datamodule(OmegaConf.create(text))


class Seen(lightning.Callback):
    """The loss of the step and the gradients before clipping."""

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, *rest: Any) -> None:
        self.loss = float(outputs["loss"])

    def on_before_optimizer_step(self, trainer: Any, model: Any, optimizer: Any) -> None:
        self.gradient = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


def one_step(
    cfg: DictConfig, data: RecordDataModule, precision: Precision, callbacks: Sequence[lightning.Callback] = ()
) -> tuple[Seen, torch.Tensor]:
    """What a training step saw; what is predicted of a test batch after it and a validation batch."""
    torch.manual_seed(0)
    model, seen = built(cfg, data), Seen()
    trainer = lightning.Trainer(
        accelerator="cpu",
        plugins=[precision],
        callbacks=[seen, *callbacks],
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=1,
        limit_test_batches=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, data)
    assert torch.isfinite(trainer.callback_metrics["val/loss"])
    trainer.test(model, data, verbose=False)
    tested, batch = model.take_tested()[1], next(iter(data.test_dataloader()))
    with torch.no_grad():
        answer = model.eval().predict_step(batch)[1][batch.sample.argsort()]
    torch.testing.assert_close(tested, answer, msg="what is scored is not what predict answers")
    return seen, tested


def check(cfg: DictConfig, data: RecordDataModule, callbacks: Sequence[lightning.Callback] = ()) -> None:
    """A step in each half precision is that in 32 bits but for rounding."""
    center, scale = data.spec.center, data.spec.scale
    exact, wanted = one_step(cfg, data, Precision(), callbacks)
    for name, precision in PRECISIONS.items():
        seen, predicted = one_step(cfg, data, precision(), callbacks)
        assert np.isfinite(seen.loss), name
        lacking = [each for each, grad in seen.gradient.items() if grad is None and exact.gradient[each] is not None]
        assert not lacking, f"{name}: parameters without a gradient: {lacking}"
        grads = {each: grad for each, grad in seen.gradient.items() if grad is not None}
        broken = [each for each, grad in grads.items() if not grad.isfinite().all()]
        assert not broken, f"{name}: gradients that are no numbers: {broken}"
        assert {grad.dtype for grad in grads.values()} == {torch.float32}, name
        assert seen.loss == pytest.approx(exact.loss, rel=0.1), f"{name}: far from the loss in 32 bits"
        off, spread = ((predicted - wanted) / scale).square().mean().sqrt(), ((wanted - center) / scale).std()
        assert off < 0.01 + 0.2 * spread, f"{name}: predictions far from those in 32 bits"


@pytest.mark.long
@pytest.mark.parametrize(("name", "options"), CASES, ids=[" ".join(case).strip() for case in CASES])
def test_a_model_takes_a_step_and_is_scored_in_half_precision(name, options):
    cfg = composed(*(FILES.get(name) or small_run(name)), *split_options(options))
    plain = OmegaConf.to_container(cfg, resolve=True)
    check(cfg, data_of(OmegaConf.to_yaml({key: plain[key] for key in ("data", "graph", "split", "seed")})))


def screen_with_kinds(folder: Path) -> list[str]:
    """Overrides of a screen of two phenotypes, with kinds, levels and missing values."""
    rng, genes = np.random.default_rng(0), [f"g{i}" for i in range(30)]
    pairs = [rng.choice(genes, 2, replace=False) for _ in range(120)]
    kinds = [rng.choice(["absent", "overexpressed"], 2) for _ in pairs]
    columns = {"genes": pairs, "kinds": kinds, "levels": [rng.uniform(0, 2, 2).round(2).astype(str) for _ in pairs]}
    table = pd.DataFrame({name: ["|".join(each) for each in cells] for name, cells in columns.items()})
    table.insert(0, "sample_id", [f"s{i}" for i in range(len(table))])
    table["fitness"], table["growth"] = rng.normal(size=(2, len(table)))
    table.loc[::7, "growth"] = np.nan
    table.to_csv(folder / "screen.csv", index=False)
    ends = pd.DataFrame(rng.choice(genes, (80, 2)), columns=["source", "target"])
    ends[ends.source != ends.target].drop_duplicates().to_csv(folder / "network.csv", index=False)
    return [
        "data=screen", f"data.record.path={folder / 'screen.csv'}", "graph=edge_list", "data.batch_size=32",
        f"graph.networks.0.path={folder / 'network.csv'}", "split=random",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["dango", "cell_graph_transformer"])
def test_kinds_levels_and_missing_phenotypes_are_read_in_half_precision(tmp_path, name):
    own = ["model.readout.heads=2"]
    if name == "cell_graph_transformer":
        own = ["model.encoder.heads=2", "model.readout.levels=true"]
    cfg = composed(f"model={name}", *screen_with_kinds(tmp_path), "model.encoder.dim=32", *own)
    check(cfg, assemble.datamodule(cfg))


@pytest.mark.parametrize("aggregation", ["rgcn", "sage", "hgt"])
def test_reactions_are_read_in_half_precision(aggregation):
    cfg = composed(*GNN, *FEW, f"model.messages.aggregation={aggregation}")
    networks = instantiate(cfg.graph.networks)
    genes = sorted({name for network in networks for name in network.source.tolist()})[:12]
    reactions = np.array([f"r{i // 3}" for i in range(len(genes))])
    ones = np.ones(len(genes), dtype=np.float32)
    there = Network("catalyses", np.array(genes), reactions, ones, True, target_type="reaction")
    back = Network("catalysed_by", reactions, np.array(genes), ones, True, source_type="reaction")
    rules = {f"r{i}": " and ".join(genes[3 * i : 3 * i + 3]) for i in range(4)}
    graph = CellGraph.from_networks([*networks, there, back], rules=GeneRules.parse("reaction", rules))
    split = OmegaConf.to_container(cfg.split, resolve=True)
    data = OmegaConf.masked_copy(cfg.data, [key for key in cfg.data if key not in assemble.NOT_DATA])
    check(cfg, instantiate(data, _partial_=True)(graph=graph, split=split, seed=0))


@pytest.mark.parametrize("attention", ["full", "neighbors", "induced"])
def test_a_part_of_the_genes_is_trained_in_half_precision(attention):
    cfg = composed(*MODELS["gene_set_transformer_curriculum"], f"model.encoder.attention={attention}")
    check(cfg, assemble.datamodule(cfg), [instantiate(cfg.callbacks.curriculum)])


@pytest.mark.long
@pytest.mark.parametrize("name", ["dango", "hgt_embedder"])
def test_evaluate_says_of_a_run_in_half_precision_what_the_run_said_and_embed_takes_it(tmp_path, name):
    """``evaluate`` computes in 32 bits and wrote other metrics over those of the run, which it scored in 16."""
    small = ("trainer.precision=bf16-mixed", "trainer.max_epochs=1", "evaluation.n_boot=20", "baselines=none")
    trained = train(composed(*MODELS[name], *small, f"paths.runs={tmp_path}"))
    folder = trained.folder.path
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        again = evaluate(compose("evaluate", [f"ckpt={trained.folder.best}", f"out={tmp_path / 'again'}", "n_boot=20"]))
    own = pd.read_csv(folder / "metrics.csv").set_index(["system", "metric"])["value"]
    other = again.evaluation.table.set_index(["system", "metric"])["value"]
    pd.testing.assert_series_equal(own, other, rtol=1e-5)
    embedded = [f"ckpt={trained.folder.best}", f"out={tmp_path / 'e.h5ad'}", "umap=false"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        found = embed(compose("embed", embedded))
    values = found.X if name == "dango" else found.table.values
    assert np.isfinite(values).all()


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "half"])
def test_a_precision_that_no_model_is_tested_in_is_refused_in_one_line(tmp_path, precision):
    """Batches are frozen, so Lightning ended in a traceback when it was to convert them."""
    with pytest.raises(
        InputError, match=f"trainer.precision={precision}: choose one of .'32-true', '32', 'bf16-mixed'"
    ):
        train(composed(*MODELS["dango"], f"trainer.precision={precision}", f"paths.runs={tmp_path}"))
