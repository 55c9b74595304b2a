"""What keys of the config were called before: a command that still uses one is told the new name."""

from __future__ import annotations

RENAMED = {
    "rivals": "comparators",
    "evaluation.lever_step_s": "evaluation.memory_step_s",
    "data.neighbours": "data.neighbors",
    "model.standardise": "model.standardize",
    "baselines.network_neighbours": "baselines.network_neighbors",
    "baselines.profile_neighbours": "baselines.profile_neighbors",
    "baselines.common_neighbours": "baselines.common_neighbors",
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
}
"""Keys of torchcell 0.1 -> what they are called now."""
