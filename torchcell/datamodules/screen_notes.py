"""What ``predict`` says of perturbed genes whose like training never met."""

from __future__ import annotations

import numpy as np

from torchcell.data.screen import KINDS, Screen
from torchcell.datamodules.prediction_notes import (
    Notes,
    between,
    by_owner,
    is_outside,
    unlike_sizes,
)
from torchcell.datamodules.spec import Spec


def screen_notes(record: Screen, spec: Spec, reads_levels: bool) -> Notes:
    """Set sizes, genes and perturbation types without training samples; levels that are not read, or out of range.

    Args:
        record: What is asked for.
        spec: Of the checkpoint; what it does not tell gives no note.
        reads_levels: Whether the model does.
    """
    extras, owner, n, notes = spec.extras, record.owner, len(record), Notes()
    if "trained_sizes" in extras:
        notes["set of another size"] = unlike_sizes("set", record.sizes.tolist(), extras["trained_sizes"])
    if "trained_genes" in extras:
        trained = np.array(spec.genes, dtype=str)[extras["trained_genes"].numpy()]
        new = ~np.isin(record.genes, trained)[record.gene]
        names = record.genes[record.gene[new]]
        notes["gene without training samples"] = by_owner("no training sample of", names, owner[new], n)
    new = ~np.isin(np.array(KINDS), spec.kinds)[record.kind]
    names = np.array(KINDS)[record.kind[new]]
    notes["perturbation type unseen in training"] = by_owner("unseen perturbation type", names, owner[new], n)
    if record.level is None:
        return notes
    if not reads_levels:
        notes["level that the model does not read"] = [
            "levels are not read by this model" if given else ""
            for given in np.bincount(owner[~np.isnan(record.level)], minlength=n).tolist()
        ]
    elif extras.get("trained_levels"):
        outside = is_outside(record.level, extras["trained_levels"])
        text = f"trained on levels of {between(extras['trained_levels'])}, not"
        names = np.array([f"{value:.4g}" for value in record.level[outside].tolist()], dtype=str)
        notes["level outside the trained range"] = by_owner(text, names, owner[outside], n)
    return notes
