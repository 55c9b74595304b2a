"""What keys of the config were called before: a command that still uses one is told the new name."""

from __future__ import annotations

from collections.abc import Iterable

RENAMED: dict[str, str | tuple[str, ...]] = {
    "rivals": "comparators",
    "evaluation.lever_step_s": "evaluation.memory_step_s",
    "data.neighbours": ("data.neighbors", "data.genes.neighbors"),
    "model.standardise": "model.standardize",
    "baselines.network_neighbours": "baselines.network_neighbors",
    "baselines.profile_neighbours": "baselines.profile_neighbors",
    "baselines.common_neighbours": "baselines.common_neighbors",
    "model.dim": "model.encoder.dim",
    "model.layers": "model.encoder.layers",
    "model.heads": ("model.encoder.heads", "model.readout.heads", "model.readout.parts"),
    "model.expansion": "model.encoder.expansion",
    "model.dropout": ("model.encoder.dropout", "model.readout.dropout"),
    "model.gradient_checkpointing": "model.encoder.gradient_checkpointing",
    "model.residual": "model.encoder.residual",
    "model.channels": "model.encoder.channels",
    "model.attention_heads": "model.encoder.attention_heads",
    "model.norm": "model.encoder.norm",
    "model.linear_readout": "model.encoder.linear_readout",
    "model.computation": "model.encoder.strategy",
    "model.relations": "model.messages.relations",
    "model.aggregation": "model.messages.aggregation",
    "model.merge": "model.messages.merge",
    "model.degree": "model.messages.degree",
    "model.ties": "model.graph_loss.head_assignments",
    "model.graph_weight": "model.graph_loss.weight",
    "model.graph_rows": "model.graph_loss.rows",
    "model.graph_negatives": "model.graph_loss.negatives",
    "model.networks": "model=cell_graph_transformer_random_networks",
    "model.network_seed": "model.graph_loss.network_seed",
    "model.hard_mask": "model=cell_graph_transformer_hard_mask",
    "model.decoder": "model=dango_own_decoder",
    "model.zero_weight": "model.reconstruction.zero_weight",
    "model.free_embedding": "model.embedding.free",
    "model.embedding_sd": ("model.embedding.sd", "model.encoder.embedding_sd"),
    "model.embedding_gain": "model.embedding.gain",
    "model.embedding_decay": "model.embedding.decay",
    "model.spectral": "model.embedding.spectral",
    "model.cold_start": "model.embedding.imputation.neighbors",
    "model.cold_power": "model.embedding.imputation.power",
    "model.cold_share": "model.embedding.imputation.untrained_rate",
    "model.pooling": "model.readout.pooling",
    "model.levels": "model.readout.levels",
    "model.score": "model.readout.score",
    "model.pair_width": "model.readout.pairs.width",
    "model.pair_start": "model.readout.pairs.start",
    "model.pair_penalty": "model.readout.pairs.penalty",
    "model.pair_decay": "model.readout.pairs.decay",
    "model.pair_trained": "model.readout.pairs.trained",
    "model.embedding": "model.encoder.embedding_dim",
    "model.hidden": "model.encoder.dim",
    "model.jump": "model.encoder.jump",
    "model.degrees": "model.encoder.degrees",
    "model.recompute": "model.encoder.recompute",
    "model.health": "model.encoder.health",
    "model.health.cosine": "model.encoder.health.cosine",
    "model.health.components": "model.encoder.health.components",
    "model.health.rank": "model.encoder.health.rank",
    "model.node_bias": "model.decoder.node_bias",
    "model.walk_pairs": "model.prior=stack",
    "model.decoder.metapath_pairs": "model.prior=stack",
    "model.decoder.metapath_steps": "model.prior=stack",
    "model.decoder.metapath_dim": "model.prior=stack",
    "model.loss_weights.metapath": "model.prior=stack",
    "model.edge_sample_size": "model.sampling.edges",
    "model.edge_balance": "model.sampling.edge_balance",
    "model.mask_share": "model.sampling.edge_fraction",
    "model.negatives": "model.sampling.negatives",
    "model.matched_share": "model.sampling.matched_fraction",
    "model.fan_outs": "model.sampling.fan_outs",
    "model.link_loss": "model.losses.links",
    "model.contrastive_kinds": "model.losses.similar_types",
    "model.contrastive_above": "model.losses.similar_above",
    "model.contrastive_temperature": "model.losses.temperature",
    "model.variance": "model.losses.variance",
    "model.loss_weights.walk": "model.prior=stack",
    "data.record.metaedges": "data.record.edge_types",
    "data.record.kinds": "data.record.graph.node_types",
    "data.record.directed": "data.record.graph.directed",
    "data.record.licences": "data.record.graph.licences",
    "data.record.drop_duplicates": "data.record.graph.drop_duplicates",
    "data.record.name": "data.record.graph.name",
    "metaedge": "edge_type",
    "baselines.distmult.lr": "baselines.distmult.adam.lr",
    "baselines.distmult.batch_size": "baselines.distmult.adam.batch_size",
    "baselines.distmult.steps": "baselines.distmult.adam.steps",
    "baselines.distmult.check_every": "baselines.distmult.adam.check_every",
    "model.inputs.molecules": "model.inputs.molecule.encoder",
    "model.inputs.molecule_dropout": "model.inputs.molecule.dropout",
    "model.inputs.molecule_drop": "model.inputs.molecule.unknown_rate",
    "model.inputs.line_drop": "model.inputs.line.unknown_rate",
    "model.inputs.line_sd": "model.inputs.line.sd",
    "model.experts": "model.router.count",
    "model.top_k": "model.router.top_k",
    "model.router_start_sd": "model.router.start_sd",
    "model.balance_rate": "model.router.balance_rate",
    "model.expert_hidden": "model.expert.hidden",
    "model.expert_dropout": "model.expert.dropout",
    "model.expert_product": "model.expert.product",
    "model.gene_width": "model.genes.width",
    "model.gene_sd": "model.genes.sd",
    "model.gene_gain": "model.genes.gain",
    "model.read_by": "model.decoder",
    "data.record.match": "data.record.controls.match",
    "data.record.control_layer": "data.record.controls.layer",
    "model.attention": "model.encoder.attention",
    "model.points": "model.encoder.points",
    "model.global_tokens": "model.encoder.global_tokens",
    "data.record.layer": "data.record.matrix.layer",
    "data.record.aliases": "data.record.matrix.aliases",
    "data.record.gene_column": "data.record.matrix.gene_column",
    "data.record.library": "data.record.matrix.library",
    "data.record.backed": "data.record.matrix.backed",
    "data.record.min_cells": "data.record.conditions.min_cells",
    "data.record.few_cells": "data.record.conditions.few_cells",
    "data.selection": "data.genes.selection",
    "data.features": "data.genes.features",
    "data.neighbors": "data.genes.neighbors",
    "data.set_size": "data.sets.size",
    "data.input_cells": "data.sets.input_cells",
    "data.eval_sets": "data.sets.eval_sets",
    "data.pseudobulk": "data.sets.pseudobulk",
    "model.singles": ("model.prior", "model.prior_use"),
}
"""Keys of torchcell 0.1 -> what they are called now: a key, a choice ``group=name``, or several of which a config has
some; a key that several models had may be called otherwise in each.
"""


def new_names(key: str, valid: Iterable[str]) -> list[str]:
    """What a key of torchcell 0.1 is called in a config.

    Args:
        key: Dotted, as it stood on the command line; also of a node, or below one that was renamed.
        valid: Dotted keys of the config at hand.

    Returns:
        Keys that the config has, and choices; empty where the key was not renamed, or means nothing to this config.
    """
    known, rest, present = key, "", set(valid)
    while known not in RENAMED and "." in known:
        known, _, last = known.rpartition(".")
        rest = f".{last}{rest}"
    names = RENAMED.get(known, ())
    names = (names,) if isinstance(names, str) else names
    return [name + (rest if "=" not in name else "") for name in names if name in present or "=" in name]
