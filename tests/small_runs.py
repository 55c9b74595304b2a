"""Every model of the tree as a small run without files: overrides of the config, by name."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from torchcell.core.datamodule import RecordDataModule
from torchcell.core.model import Model
from torchcell.training import checkpoint
from torchcell.training.entry import conf_dir
from torchcell.training.prior import fit_prior

SCREEN = (
    "data.record.n_genes=120", "data.record.n_sets=301", "data.record.n_queries=16", "data.record.n_arrays=60",
    "data.batch_size=32", "data.eval_batch_size=8",
)  # fmt: skip
RESPONSE = (
    "+experiment=simulated_chemoe", "data.record.n_drugs=24", "data.record.doses=[1.0,10.0]",
    "data.record.n_genes=60", "data.cell_line=[A375,PC3]", "data.batch_size=16",
    "data.eval_batch_size=4", "model.inputs.width=16", "model.inputs.hidden=16", "data.record.n_replicates=1",
)  # fmt: skip
CELLS = (
    "+experiment=simulated_perturbseq", "data.record.n_genes=60", "data.record.n_regulators=16",
    "data.record.n_doubles=5", "data.record.cells_per_condition=6", "data.sets.size=2", "data.batch_size=8",
    "+data.eval_batch_size=1",
)  # fmt: skip
CGT = (
    "model=cell_graph_transformer",
    "model.encoder.dim=16",
    "model.encoder.heads=1",
    "model.encoder.layers=1",
    *SCREEN,
)
GNN = ("model=perturbed_cell_gnn", "model.encoder.dim=16", "model.encoder.attention_heads=1", *SCREEN)
GENE_SETS = ("model.encoder.dim=16", "model.encoder.heads=1", "model.encoder.layers=1")
GRAPHS = (
    "data.molecules._target_=torchcell.drug_response.molecules.MoleculeGraphs",
    "~data.molecules.bits",
    "~data.molecules.radius",
)
NARROW = ("model.genes.width=16", "model.expert.hidden=[16,8]")
MODELS: dict[str, tuple[str, ...]] = {
    "dango": (*SCREEN, "model.encoder.dim=16", "model.readout.heads=1"),
    "gnn_index": (*GNN, "model.readout.parts=[local]"),
    "gnn_lazy": GNN,
    "gnn_khop": (*GNN, "data.hops=1"),
    "cell_graph_transformer": (*CGT, "model.graph_loss.head_assignments={physical: [[0, 0]]}"),
    "hgt_embedder": (
        "+experiment=simulated_hgt", "data.record.n_genes=60", "data.record.n_compounds=40",
        "data.record.n_diseases=30", "data.record.n_communities=5", "model.encoder.embedding_dim=16",
        "model.encoder.dim=16", "model.encoder.heads=1", "model.prior=path_features", "model.sampling.edges=50",
        "data.batch_size=16",
    ),
    # With one expert a sample and few samples a batch, some expert is idle in most steps.
    "chemoe": (*RESPONSE, *NARROW, "model.router.count=6", "model.router.top_k=1", "model.router.balance_rate=0.01",
               "data.batch_size=2"),
    "chemoe_graph": (*RESPONSE, *GRAPHS, "model=chemoe_graph", *NARROW, "model.atom_heads=1"),
    "response_mlp": (*RESPONSE, "model=response_mlp", "model.genes.width=16", "model.hidden=[16,8]"),
    "response_product": (*RESPONSE, "model=response_product", "model.genes.width=16", "model.hidden=[16,8]"),
    "additive_latent": (*RESPONSE, "model=additive_latent", "model.hidden=16"),
    "latent_shift": (*RESPONSE, "model=latent_shift", "model.hidden=16", "model.latent=8"),
    "gene_set_transformer": (*CELLS, *GENE_SETS),
    "gene_set_transformer_curriculum": (
        *CELLS, *GENE_SETS, "callbacks=curriculum",
        "callbacks.curriculum.phases=[{epoch: 0, genes: 0.2}, {epoch: 1, genes: null}]",
    ),
}  # fmt: skip
"""Overrides of every model's small run; all but the last name in ``conf/model`` or experiments of the model."""


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(overrides))


def built(cfg: DictConfig, data: RecordDataModule) -> Model:
    """The model of a config for data that hold what its prior predicts, if it has one."""
    _, spec = fit_prior(data, cfg)
    return checkpoint.built(cfg.model, spec)
