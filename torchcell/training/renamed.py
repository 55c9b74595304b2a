"""What keys of the config were called before: a command that still uses one is told the new name."""

from __future__ import annotations

from collections.abc import Iterable

RENAMED: dict[str, str | tuple[str, ...]] = {
    "rivals": "comparators",
    "evaluation.lever_step_s": "evaluation.memory_step_s",
    "data.neighbours": "data.neighbors",
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
    "model.embedding_sd": "model.embedding.sd",
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
