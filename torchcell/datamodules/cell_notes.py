"""What ``predict`` says of perturbations of single cells whose like training never met."""

from __future__ import annotations

import numpy as np

from torchcell.data.conditions import Conditions
from torchcell.datamodules.prediction_notes import (
    Notes,
    by_owner,
    unless_known,
    unlike_sizes,
)
from torchcell.datamodules.spec import Spec


def cell_notes(record: Conditions, spec: Spec) -> Notes:
    """Genes that were never perturbed in training, combinations of another size, groups without training cells."""
    extras, notes, targets = spec.extras, Notes(), record.targets
    if "trained_perturbations" in extras:
        trained = extras["trained_perturbations"]
        owner = np.repeat(np.arange(len(targets)), [len(genes) for genes in targets])
        names = np.array([gene for genes in targets for gene in genes], dtype=str)
        new = ~np.isin(names, trained["genes"])
        text = "never perturbed in training:"
        notes["gene never perturbed in training"] = by_owner(text, names[new], owner[new], len(targets))
        sizes = [len(genes) for genes in targets]
        notes["combination of another size"] = unlike_sizes("combination", sizes, trained["sizes"])
    notes["unseen group"] = unless_known("no training cells of", record.group, extras["groups"])
    return notes
