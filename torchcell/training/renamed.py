"""What keys of the config were called before: a command that still uses one is told the new name."""

from __future__ import annotations

RENAMED: dict[str, str | tuple[str, ...]] = {
    "rivals": "comparators",
    "evaluation.lever_step_s": "evaluation.memory_step_s",
    "data.neighbours": "data.neighbors",
    "model.standardise": "model.standardize",
    "baselines.network_neighbours": "baselines.network_neighbors",
    "baselines.profile_neighbours": "baselines.profile_neighbors",
    "baselines.common_neighbours": "baselines.common_neighbors",
    "model.singles": ("model.prior", "model.prior_use"),
}
"""Keys of torchcell 0.1 -> what they are called now, or the keys that say the same."""
