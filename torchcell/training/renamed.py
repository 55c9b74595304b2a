"""What keys of the config were called before: a command that still uses one is told the new name."""

from __future__ import annotations

RENAMED: dict[str, str | tuple[str, ...]] = {
    "rivals": "comparators",
    "evaluation.lever_step_s": "evaluation.memory_step_s",
    "data.neighbours": "data.genes.neighbors",
    "model.standardise": "model.standardize",
    "baselines.network_neighbours": "baselines.network_neighbors",
    "baselines.profile_neighbours": "baselines.profile_neighbors",
    "baselines.common_neighbours": "baselines.common_neighbors",
    "model.dim": "model.encoder.dim",
    "model.layers": "model.encoder.layers",
    "model.heads": "model.encoder.heads",
    "model.expansion": "model.encoder.expansion",
    "model.dropout": "model.encoder.dropout",
    "model.attention": "model.encoder.attention",
    "model.points": "model.encoder.points",
    "model.global_tokens": "model.encoder.global_tokens",
    "model.gradient_checkpointing": "model.encoder.gradient_checkpointing",
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
"""Keys of torchcell 0.1 -> what they are called now, or the keys that say the same."""
